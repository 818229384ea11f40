"""Every notebook runs from top to bottom, as Jupyter would run it."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.py"))


def test_there_are_notebooks_and_they_are_thin():
    assert len(NOTEBOOKS) >= 5
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert "# %% [markdown]" in text, path.name
        assert len(text.splitlines()) <= 150, f"{path.name}: what is long belongs into the packages"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    jupytext = pytest.importorskip("jupytext", reason="extra `notebooks` is not installed")
    client = pytest.importorskip("nbclient", reason="extra `notebooks` is not installed")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = jupytext.read(path)
    client.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert outputs, "a notebook shows something"
