"""What happens in which order: the Python API, the levels of the BIDS App, their files and log."""
