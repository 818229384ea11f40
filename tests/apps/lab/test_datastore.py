"""Real data by name: where it is looked for, in which order, and that its bytes are checked."""

import hashlib
import http.server
import os
import re
import threading
import tomllib
from pathlib import Path

import pytest

from apps.lab import datastore
from apps.lab.datastore import fetch, fetch_all, list_datasets
from core.errors import DataError

CONTENT = b"smiles,pIC50\nCCO,4.2\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A registry whose two sets come from a server in this process; an empty cache, no mirror."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "one.csv").write_bytes(CONTENT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http_server.server_port}/"
        row = f'byte = {len(CONTENT)}, sha256 = "{SHA256}" }}'
        text = "".join(
            f'[{name}]\naddress = "{address}"\nfolder = "toy/{name}"\nunit = "pK"\n'
            f'licence = "MIT"\n'
            f'note = ""\nembedded = "pocket"\n[{name}.file]\n'
            + "".join(f'{key} = {{ path = "{key}.csv", {row}\n' for key in keys)
            for name, keys in {"single": ["one"], "pair": ["one", "two"]}.items()
        )
        (tmp_path / "registry.toml").write_text(text)
        monkeypatch.setattr(datastore, "REGISTRY", tmp_path / "registry.toml")
        monkeypatch.setattr(datastore, "cache_dir", lambda: tmp_path / "cache")
        monkeypatch.delenv("TESSERA_DATA_DIR", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield http_server
        http_server.shutdown()


def test_mirror_then_cache_then_download(server, tmp_path, monkeypatch):
    assert list_datasets()[0].here is None
    first = fetch("single")
    assert (first.source, first.unit, first.licence) == ("download", "pK", "MIT")
    assert first.path.read_bytes() == CONTENT
    assert first.path == tmp_path / "cache" / "toy" / "single" / "one.csv"
    assert (fetch("single").source, list_datasets()[0].here) == ("cache", "cache")
    mirrored = tmp_path / "mirror" / "toy" / "single" / "one.csv"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(CONTENT)
    monkeypatch.setenv("TESSERA_DATA_DIR", str(tmp_path / "mirror"))
    assert (fetch("single").source, fetch("single").path) == ("mirror", mirrored)
    assert fetch("pair/one").source == "download"  # a mirror need not hold everything


def test_a_wrong_hash_is_never_used(server, tmp_path, monkeypatch):
    path = fetch("single").path
    path.write_bytes(CONTENT + b"CCC,9\n")
    other = hashlib.sha256(CONTENT + b"CCC,9\n").hexdigest()
    with pytest.raises(DataError, match=f"sha256 is {other}, expected {SHA256}; delete it"):
        fetch("single")
    (tmp_path / "served" / "one.csv").write_bytes(b"something else")
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be downloaded .*hash"):
        fetch("single")
    assert not path.exists()


def test_what_cannot_be_had_names_the_variable_and_the_embedded_set(server):
    message = (
        r"'pair/two' is not here and cannot be downloaded .*404.*"
        r"put toy/pair/two\.csv into the folder that \$TESSERA_DATA_DIR names, .*'pocket'"
    )
    with pytest.raises(DataError, match=message):
        fetch("pair/two")


def test_names(server):
    with pytest.raises(DataError, match=r"no data set is named 'singel'; did you mean 'single'\?"):
        fetch("singel")
    with pytest.raises(DataError, match=r"has 2 files, name one: pair/one, pair/two"):
        fetch("pair")
    with pytest.raises(DataError, match=r"pair/two"):
        fetch_all("pair")
    assert [file.name for file in fetch_all("single")] == ["single"]


def test_a_missing_mirror_is_named(server, monkeypatch):
    monkeypatch.setenv("TESSERA_DATA_DIR", "/no/such/folder")
    with pytest.raises(DataError, match=r"\$TESSERA_DATA_DIR is '/no/such/folder'.*not a folder"):
        fetch("single")


def test_the_registry_pins_every_file():
    for dataset, table in tomllib.loads(datastore.REGISTRY.read_text()).items():
        assert re.search(r"/[0-9a-f]{40}/", table["address"]), dataset
        assert table["address"].endswith("/")
        for name in ("unit", "licence", "note", "embedded"):
            assert table[name], (dataset, name)
        for row in table["file"].values():
            assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"])
            assert 1_000 < row["byte"] < 5_000_000
    names = [entry.name for entry in datastore._registry().values()]
    assert len(names) == len(set(names)) == 35


@pytest.mark.skipif(not os.environ.get("TESSERA_DATA_DIR"), reason="needs a data mirror")
def test_the_mirror_holds_what_the_registry_says():
    for dataset in ("bace", "moleculeace", "davis", "kiba"):
        for file in fetch_all(dataset):
            assert file.source == "mirror"
    sizes = {entry.name: entry.byte for entry in list_datasets()}
    assert Path(fetch("bace").path).stat().st_size == sizes["bace"]
