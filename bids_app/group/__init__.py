"""Tables of a dataset, from the results of its images."""
