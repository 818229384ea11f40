"""No file runs code: what the source may not call, whatever the names it imports it by."""

import ast
from pathlib import Path

import pytest

from apps.lab import datastore

ROOT = Path(__file__).resolve().parents[1]
# Full names, matched whole or as the beginning before a dot.
BANNED = {
    "pickle": "reads code from a file",
    "cPickle": "reads code from a file",
    "dill": "reads code from a file",
    "cloudpickle": "reads code from a file",
    "joblib.load": "unpickles",
    "shelve": "unpickles",
    "marshal": "reads code from a file",
    "torch.load": "unpickles; checkpoints are safetensors",
    "pandas.read_pickle": "unpickles",
    "eval": "runs text",
    "exec": "runs text",
    "compile": "runs text",
    "os.system": "runs a shell",
    "yaml.load": "makes objects from text",
    "tarfile": "may write outside its folder; nothing here is an archive",
    "zipfile": "may write outside its folder; nothing here is an archive",
    "shutil.unpack_archive": "may write outside its folder",
    "pooch.Unzip": "may write outside its folder",
    "pooch.Untar": "may write outside its folder",
    "urllib.request": "downloads go through apps.lab.datastore, which checks hashes",
    "requests.get": "downloads go through apps.lab.datastore, which checks hashes",
    "xml.dom.minidom": "entities",
}
# Third words that make a call safe or unsafe.
NEEDS = {
    "numpy.load": ("allow_pickle", False),
    "pooch.retrieve": ("known_hash", ...),
}


def aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    out = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                out[each.asname or each.name.partition(".")[0]] = (
                    each.name if each.asname else each.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for each in node.names:
                out[each.asname or each.name] = f"{node.module}.{each.name}"
    return out


def full_name(node: ast.AST, known: dict[str, str]) -> str:
    """Spell what is named, with the names it was imported by undone; "" for anything else."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = full_name(node.value, known)
        return f"{before}.{node.attr}" if before else ""
    return ""


def dangers(source: str) -> list[str]:
    """Every call and import that a file could make run code, or write where it should not."""
    tree = ast.parse(source)
    known, found = aliases(tree), []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Call):
            names = [full_name(node.func, known)]
            words = {word.arg: word.value for word in node.keywords}
            if names[0] in NEEDS:
                key, value = NEEDS[names[0]]
                given = words.get(key)
                is_none = isinstance(given, ast.Constant) and given.value is None
                is_it = isinstance(given, ast.Constant) and given.value is value
                if given is None or is_none or (value is not ... and not is_it):
                    found.append(f"{node.lineno}: {names[0]} without {key}={value}")
            shell = words.get("shell")
            if isinstance(shell, ast.Constant) and shell.value:
                found.append(f"{node.lineno}: {names[0]} runs a shell")
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{each.name}" for each in node.names]
        for name in names:
            for banned, why in BANNED.items():
                if name == banned or name.startswith(f"{banned}."):
                    found.append(f"{node.lineno}: {name} {why}")
    return found


def test_nothing_in_the_source_runs_what_it_reads():
    files = [file for top in ("core", "hw", "apps") for file in (ROOT / top).rglob("*.py")]
    assert len(files) > 200
    found = [f"{file.relative_to(ROOT)}:{line}" for file in files for line in dangers(
        file.read_text(encoding="utf-8"))]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads as read\nread(b)",
        "import torch as t\nt.load('a.pt')",
        "from torch import load\nload('a.pt')",
        "import numpy as np\nnp.load('a.npy')",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "eval(text)",
        "def f():\n    exec(text)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import tarfile",
        "import pooch\npooch.retrieve(a, known_hash=None)",
        "from urllib.request import urlopen",
        "import pandas as pd\npd.read_pickle(a)",
    ],
)
def test_a_danger_is_found(source):
    assert len(dangers(source)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('a')",
        "import numpy as np\nnp.load(a, allow_pickle=False)",
        "import pooch\npooch.retrieve(a, known_hash=h)",
    ],
)
def test_what_only_looks_like_it_is_left_alone(source):
    assert dangers(source) == []


def test_no_file_of_the_registry_can_leave_the_cache():
    for entry in datastore._registry().values():
        place = Path(entry.place)
        assert not place.is_absolute()
        assert ".." not in place.parts
        assert len(entry.sha256) == 64
        assert entry.address.startswith("https://")
