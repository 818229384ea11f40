"""How one item of work is spread over the tiles of a machine."""
