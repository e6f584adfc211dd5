"""From a volume to its segmentation, with whichever engine a model needs."""
