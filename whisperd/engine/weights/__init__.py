"""Model weights: find, fetch, import, verify and load them."""
