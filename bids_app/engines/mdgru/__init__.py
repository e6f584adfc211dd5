"""MD-GRU, run in PyTorch from the published TensorFlow checkpoint."""
