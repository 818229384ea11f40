"""Small tile machines, and the comparison of what was counted with what was charged."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hw.execute import Execution
from hw.item import ItemCost
from hw.machine import TileMachine, load_machine

#: Sums over some hundred float64 terms in two orders: 2^-52 x 1000, rounded up.
SUM = 1e-12


@pytest.fixture(scope="session")
def tiles() -> Callable[..., TileMachine]:
    """Return a Bow with other numbers of tiles and bytes on each."""

    def made(n_tile: int, memory_byte: int = 638_976) -> TileMachine:
        machine = load_machine("ipu_bow")
        assert isinstance(machine, TileMachine)
        return replace(machine, n_tile=n_tile, tile_memory_byte=memory_byte)

    return made


@pytest.fixture(scope="session")
def assert_counted_is_charged() -> Callable[[Execution, ItemCost], None]:
    """Return the comparison, phase by phase."""

    def compare(done: Execution, cost: ItemCost) -> None:
        assert done.plan == cost.plan
        assert [s.label for s in done.supersteps] == [s.label for s in cost.supersteps]
        for counted, charged in zip(done.supersteps, cost.supersteps, strict=True):
            assert (counted.kind, counted.part) == (charged.kind, charged.part)
            assert counted.n_tile == charged.n_tile, charged.label
            assert counted.cycles == pytest.approx(charged.cycles, rel=SUM), charged.label
            assert counted.received_byte == charged.received_byte, charged.label
            assert counted.sent_byte == charged.sent_byte, charged.label
        assert done.received_byte.sum() == cost.exchange_byte
        assert done.sent_byte.sum() == cost.exchange_byte

    return compare
