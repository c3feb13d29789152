"""Model weights: found, fetched, imported, verified, loaded."""
