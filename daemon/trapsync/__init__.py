"""trapsync brings every picture of a camera trap home."""

__version__ = "0.1.0"
