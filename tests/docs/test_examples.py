"""The examples in docstrings say what is true, and every function of the public faces has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import apps
import core
import hw

FACES = ("core", "core.sparse", "core.precision", "core.optim", "hw")


def modules(top):
    found = pkgutil.walk_packages(top.__path__, f"{top.__name__}.")
    return [top.__name__, *(m.name for m in found if m.name.split(".")[-1] != "__main__")]


@pytest.mark.parametrize("top", [core, hw, apps], ids=lambda top: top.__name__)
def test_examples_run(top):
    n_example, wrong = 0, []
    for name in modules(top):
        module = importlib.import_module(name)
        runner = doctest.DocTestRunner(verbose=False)
        said = []
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
            runner.run(test, out=said.append)
        done = runner.summarize(verbose=False)
        n_example += done.attempted
        if done.failed:
            wrong.append("".join(said))
    assert not wrong, "\n".join(wrong)
    assert n_example > (0 if top is apps else 10)


@pytest.mark.parametrize("face", FACES)
def test_every_public_function_has_an_example(face):
    module = importlib.import_module(face)
    functions = {
        n: getattr(module, n) for n in module.__all__ if inspect.isroutine(getattr(module, n))
    }
    assert [name for name, f in functions.items() if ">>> " not in (f.__doc__ or "")] == []


def test_a_wrong_example_would_be_seen():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 1
