"""Where sparse layers beat dense ones, by the machine model alone: nothing is trained for it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property

from apps.suite.study.spec import BreakEvenConfig

# A block size counts as fast as another within this factor.
AS_FAST = 1.1


class BreakEven:
    """Speed and energy of block-sparse over dense products of square layers.

    Parameters
    ----------
    config : BreakEvenConfig
    machines : sequence of str
    """

    def __init__(self, config: BreakEvenConfig, machines: Sequence[str]):
        self.config = config
        self.machines = list(machines)

    @cached_property
    def speed(self) -> dict[tuple[str, int, int, float], float]:
        """Dense time over sparse time, by machine, block, width and density.

        A block that is wider than the layer is left out.
        """
        from hw import load_machine
        from hw.single import parse_op
        from hw.targets import cost_item

        found = {}
        c = self.config
        for name, width in itertools.product(self.machines, c.width):
            machine = load_machine(name)
            shape = f"m={width} k={width} n={c.n_row} dtype={c.number_format}"
            dense = cost_item(parse_op(f"matmul {shape}"), machine).time_s
            for block, density in itertools.product(c.block, c.density):
                if block <= width:
                    text = f"spmm {shape} block={block} density={density}"
                    sparse = cost_item(parse_op(text), machine).time_s
                    found[name, block, width, density] = dense / sparse
        return found

    def densest(self, machine: str, block: int, width: int) -> float | None:
        """Give the greatest density at which sparse is no slower, None where it always is.

        Between the densities of the study, the speed is taken as a power of the density; beyond
        the greatest of them nothing is claimed.
        """
        points = sorted(
            (density, self.speed[machine, block, width, density])
            for density in self.config.density
            if (machine, block, width, density) in self.speed
        )
        found = None
        for i, (density, speed) in enumerate(points):
            if speed >= 1.0:
                found = density
            elif found is not None and points[i - 1][1] >= 1.0:
                lower, above = points[i - 1]
                share = math.log(above) / math.log(above / speed)
                found = lower * (density / lower) ** share
        return found

    def smallest_block(self, machine: str, width: int, density: float) -> int | None:
        """Give the smallest block that is as fast as any; None where dense is faster than all."""
        speeds = {
            block: self.speed[machine, block, width, density]
            for block in sorted(self.config.block)
            if (machine, block, width, density) in self.speed
        }
        if not speeds or max(speeds.values()) <= 1.0:
            return None
        most = max(speeds.values())
        return next(block for block, speed in speeds.items() if speed * AS_FAST >= most)
