"""The documentation is built offline, its links lead somewhere, its reference is whole."""

import html
import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path

import pytest

import apps
import core
import hw

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builder():
    pytest.importorskip("pdoc")
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_that_leads_nowhere_and_a_load_from_outside_are_found(builder, tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">a</h1><a href="b.html">b</a><a href="#top">t</a><a href="#gone">g</a>'
        '<a href="https://example.org">e</a><script src="https://example.org/x.js"></script>'
    )
    assert builder.broken(tmp_path) == [
        "a.html loads https://example.org/x.js",
        "a.html links to b.html",
        "a.html links to #gone",
    ]


@pytest.mark.slow
def test_the_whole_is_built_and_names_every_public_name(builder, tmp_path):
    builder.build(tmp_path / "docs")
    reference = tmp_path / "docs" / "reference"
    missing = []
    for top in (core, hw, apps):
        found = pkgutil.walk_packages(top.__path__, f"{top.__name__}.")
        for name in [top.__name__, *(m.name for m in found if m.ispkg)]:
            module = importlib.import_module(name)
            page = html.unescape((reference / f"{name.replace('.', '/')}.html").read_text())
            for public in getattr(module, "__all__", []):
                value = getattr(module, public)
                is_told = (inspect.isclass(value) or inspect.isroutine(value)) and value.__doc__
                if is_told and f'id="{public}"' not in page:
                    missing.append(f"{name}.{public}")
    assert missing == []
