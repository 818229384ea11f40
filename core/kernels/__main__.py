"""``python -m core.kernels``: build the kernels ahead of their first use and say where they lie."""

import sys

from core.kernels.load import library

built = library()
print(built._name if built else "no kernels: the torch-only path is used")
sys.exit(0 if built else 1)
