"""Applications built on `core` and costed by `hw`."""
