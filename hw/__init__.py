"""The tile machine: what running a PyTorch program costs, and on what machine."""
