"""Optimizers for large batches whose state may rest in 8 or 16 bits."""

from core.optim.adam import Adam
from core.optim.lamb import Lamb
from core.optim.sgd import Sgd
from core.optim.stateful import STATE_FORMATS, StatefulOptimizer

__all__ = ["STATE_FORMATS", "Adam", "Lamb", "Sgd", "StatefulOptimizer"]
