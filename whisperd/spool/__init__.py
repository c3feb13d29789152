"""TRUTH ON DISK: the tree, durable writes, and the four transitions claim, release, finish, fail."""
