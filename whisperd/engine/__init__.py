"""MODELS: the engines that run them, and their weights. Engines load torch, so that only a worker may import them."""
