"""A small global weather model whose radiation is learned."""
