"""The top floor: the command, the demo and the studies across both applications."""
