"""What work costs on a tile machine, on a GPU and on a systolic array."""

from hw.item import PARTS, ItemCost, Superstep
from hw.targets.dispatch import cost_item, expanded

__all__ = ["PARTS", "ItemCost", "Superstep", "cost_item", "expanded"]
