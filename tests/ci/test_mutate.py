"""The mutation check breaks code, and only code."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''
def f(x: int = 3, y=-1):
    """Docstring with 7."""
    if x < 5 and not y:
        raise ValueError(f"got {x + 1}")
    return min(x, y) * 2
'''


@pytest.fixture(scope="module")
def mutate():
    spec = importlib.util.spec_from_file_location("mutate", ROOT / ".ci" / "mutate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module  # typing.NamedTuple looks there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutate"]


def test_every_site_gives_other_code_that_compiles(mutate):
    tree = ast.parse(SOURCE)
    names = [what for _, what in mutate.sites(tree)]
    numbers = [f"constant {n}" for n in (1, 2, 3, 5)]
    others = ["USub", "condition", "And", "Lt", "Not", "Mult", "call min"]
    assert sorted(names) == sorted([*numbers, *others])
    texts = {ast.unparse(mutate.broken(tree, i)) for i in range(len(names))}
    assert len(texts) == len(names)
    assert ast.unparse(tree) not in texts
    for text in texts:
        compile(text, "f", "exec")
        assert "got {x + 1}" in text


def test_a_finder_gives_the_broken_module_alone(mutate, tmp_path, monkeypatch):
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    file = tmp_path / "broken_one.py"
    file.write_text("value = 1 + 1\n")
    finder = mutate.Finder(mutate.Site(file, 0, 1, "Add"))
    assert finder.find_spec("other") is None
    spec = finder.find_spec("broken_one")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.value == 0
