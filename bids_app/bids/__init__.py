"""Everything that knows BIDS file names: finding images, and naming and reading results."""
