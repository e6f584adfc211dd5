"""Importers of published models into model folders."""
