"""whisperd: a watched folder that turns recordings into text."""

__version__ = "0.1.0"
