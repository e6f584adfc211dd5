"""Midbrain, pons and medulla on T1-weighted MRI, as a BIDS App."""

__version__ = "0.1.0"
