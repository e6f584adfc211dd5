"""Pictures and pages by which a reader judges results."""
