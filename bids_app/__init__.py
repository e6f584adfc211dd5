"""Midbrain, pons and medulla on T1-weighted MRI, as a BIDS App."""

import os

# torch then asks for pages of 2 MB for large tensors (Linux), and reads this once, before its first
# tensor. A fresh tensor of 50 MB costs 5 ms instead of 24, of which a network makes dozens.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
