"""Benchmarks of accuracy, quality measures, speed and memory; see ``python -m benchmarks``."""
