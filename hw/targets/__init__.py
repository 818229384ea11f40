"""What work costs on a tile machine, on a GPU and on a systolic array."""

from hw.targets.dispatch import cost_item
from hw.targets.item import PARTS, ItemCost, Superstep

__all__ = ["PARTS", "ItemCost", "Superstep", "cost_item"]
