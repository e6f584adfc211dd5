"""Model folders: what a model is, where it is found, how it is checked."""
