"""Import of MD-GRU models from TensorFlow checkpoints."""
