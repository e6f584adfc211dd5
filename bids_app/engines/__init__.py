"""Inference engines: they know arrays and voxel sizes, not BIDS and not files of images."""
