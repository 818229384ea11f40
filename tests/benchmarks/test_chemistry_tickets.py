import numpy as np
import pytest

from apps.chemistry.datasets import load_table
from apps.lab.variant import Variant
from benchmarks import chemistry_tickets


def test_every_kind_is_trained_and_tickets_start_from_what_pruning_left(monkeypatch):
    table = load_table("pocket")
    rows = [np.nonzero(table.split == part)[0][:100] for part in ("train", "valid", "test")]
    starts, real = [], chemistry_tickets._trained

    def watched(*args, start=None, **named):
        starts.append(start)
        model, error = real(*args, start=start, **named)
        if start is not None:  # the pattern stays as it was given
            for name, tensor in model.state_dict().items():
                if name.endswith("row_index"):
                    assert tensor.equal(start[name])
        return model, error

    monkeypatch.setattr(chemistry_tickets, "_trained", watched)
    small = Variant(density=0.2, block=8)
    found = chemistry_tickets.tickets(table.take(np.concatenate(rows)), small, 2, seed=0)
    assert list(found) == list(chemistry_tickets.KINDS)
    assert all(np.isfinite(error) for error in found.values())
    _, _, ticket, fresh, drawn = starts
    assert drawn is None
    for name in ticket:
        same = np.array_equal(ticket[name], fresh[name])
        if name.endswith(("row_index", "col_index")):
            assert same
        elif name.endswith("values"):
            assert ticket[name].shape == fresh[name].shape
            assert not same
    again = chemistry_tickets.tickets(table.take(np.concatenate(rows)), small, 2, seed=0)
    assert found == pytest.approx(again, abs=0)
