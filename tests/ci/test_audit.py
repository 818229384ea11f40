"""The audit of pins finds what is wrong, and never passes over what was not asked."""

import importlib.util
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("audit", None)


def test_pins_that_are_missing_outside_or_not_installed_are_named(audit):
    needs = [Requirement("torch>=2.6,<2.14"), Requirement("rdkit>=2024.9"), Requirement("zarr")]
    pins = audit.pinned("# words\ntorch==2.14.0\nNumpy==2.1.0\n")
    held = {"torch": "2.14.0+cpu", "numpy": "2.0.0", "rdkit": "2025.3"}
    assert audit.problems(needs, pins, held) == [
        "torch: the pin 2.14.0 lies outside <2.14,>=2.6",
        "rdkit is installed but not pinned; run `make lock`",
        "numpy: installed 2.0.0, pinned 2.1.0; set up again",
    ]


def test_what_pip_audit_skips_is_not_called_safe(audit):
    known = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    assert audit.judged([known]) == (["a 1: CVE-1, mended in 2"], "")
    found, why_not = audit.judged([{"name": "b", "skip_reason": "not found"}])
    assert (found, why_not) == ([], "1 of 1 packages are unknown to the index")


def test_the_pins_of_this_checkout_are_in_order(audit):
    pins = audit.pinned((ROOT / "constraints.txt").read_text())
    needs = audit.wanted((ROOT / "pyproject.toml").read_text())
    assert len(pins) > 50
    assert audit.problems(needs, pins, {}) == []
