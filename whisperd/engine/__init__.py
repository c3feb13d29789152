"""MODELS: the code that runs them. Imports torch; only a worker may import this room's engines."""
