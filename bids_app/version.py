"""The version of the app; CITATION.cff and the containers must state the same."""

__version__ = "0.1.0"
