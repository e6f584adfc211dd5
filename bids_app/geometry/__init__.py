"""Planes and frames fixed to the brainstem, in millimetres."""
