"""All that knows names of BIDS files: finding images, and naming and reading results."""
