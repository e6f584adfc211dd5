"""Orchestration: the Python API, the two levels of the BIDS App, and their files and logs."""
