"""Numbers from label maps, probabilities and images."""
