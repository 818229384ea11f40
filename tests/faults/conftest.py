"""The bench on which commands are disturbed, and the count of what was done to them."""

import pytest

from tests.faults.commands import INJECTED, Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """Inputs and undisturbed runs, made once for all faults."""
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def inject():
    """Count one fault of a kind."""

    def count(kind):
        INJECTED[kind] += 1

    return count


def pytest_terminal_summary(terminalreporter):
    """Print how many faults of each kind were injected."""
    if INJECTED:
        terminalreporter.write_sep("-", f"{INJECTED.total()} faults injected")
    for kind, n in sorted(INJECTED.items()):
        terminalreporter.write_line(f"{n:5d}  {kind}")
