"""Tables and sentences of the break-even map."""

from __future__ import annotations

from collections.abc import Mapping

from apps.lab.report.parts import Cell, Row
from apps.lab.report.words import MISSING, number, times
from apps.suite.study.break_even import BreakEven

NEVER = "never"
DENSE = "dense"


class MapRows:
    """What the page shows of a `BreakEven`; `titles` names its machines."""

    def __init__(self, breaks: BreakEven, titles: Mapping[str, str]):
        self.map = breaks
        self.titles = titles

    def answers(self) -> list[str]:
        """Say, machine by machine, where sparse pays and where 16 by 16 is too big."""
        config = self.map.config
        found = []
        for machine in self.map.machines:
            places = [(w, d) for w in config.width for d in config.density]
            smallest = [self.map.smallest_block(machine, w, d) for w, d in places]
            pays = [block for block in smallest if block is not None]
            text = f"{self.titles[machine]}: "
            if not pays:
                found.append(text + "no sparse layer of the map is faster than the dense one.")
                continue
            text += f"sparse is faster at {len(pays)} of {len(places)} widths and densities"
            if 16 in config.block and min(config.block) < 16:
                fine = sum(block < 16 for block in pays)
                text += f"; in {fine} of those a block smaller than 16 by 16 is as fast"
            found.append(text + ".")
        return found

    def densest_rows(self, machine: str) -> list[Row]:
        """Give width by block: the density at which sparse breaks even."""
        config = self.map.config
        rows = []
        for width in config.width:
            cells = []
            for block in config.block:
                density = self.map.densest(machine, block, width)
                if block > width:
                    cells.append(Cell(MISSING))
                elif density is None:
                    cells.append(Cell(NEVER, mark="loss"))
                else:
                    is_all = density >= max(config.density)
                    text = f"{'≥ ' if is_all else ''}{number(density, 2)}"
                    cells.append(Cell(text, mark="gain" if is_all else ""))
            rows.append(Row(f"{width:,}", "model", cells))
        return rows

    def smallest_rows(self, machine: str) -> list[Row]:
        """Give width by density: the smallest block that is as fast as any."""
        config = self.map.config
        rows = []
        for width in config.width:
            cells = []
            for density in config.density:
                block = self.map.smallest_block(machine, width, density)
                if block is None:
                    cells.append(Cell(DENSE, mark="loss"))
                else:
                    cells.append(Cell(str(block), mark="gain" if block < 16 else ""))
            rows.append(Row(f"{width:,}", "model", cells))
        return rows

    def speed_rows(self, machine: str) -> list[Row]:
        """Give every speed over dense."""
        config = self.map.config
        rows = []
        for width in config.width:
            for block in (b for b in config.block if b <= width):
                cells = []
                for density in config.density:
                    speed = self.map.speed[machine, block, width, density]
                    mark = "gain" if speed > 1 else "loss" if speed < 1 else ""
                    cells.append(Cell(times(speed), mark=mark))
                rows.append(Row(f"{width:,} in blocks of {block}", "model", cells))
        return rows
