"""MEASURING: speed, word errors and memory of whisperd and of other programs on the same recordings."""
