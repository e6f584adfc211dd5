"""Import of nnU-Net v1 models."""
