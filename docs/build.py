"""Builds the documentation: `python docs/build.py` writes docs/build/index.html.

The pages are the Markdown files beside this one; the reference is made from docstrings by pdoc.
Everything works offline.
"""

from __future__ import annotations

import importlib
import re
import shutil
import tempfile
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

HERE = Path(__file__).resolve().parent
OUT = HERE / "build"
STYLE = (HERE / "page.css").read_text(encoding="utf-8")


def title_of(text: str) -> str:
    """Return the first heading of a page."""
    found = re.match(r"# (.+)", text)
    if found is None:
        raise SystemExit("docs/build.py: a page must begin with a line '# Title'")
    return found[1]


def pages() -> dict[str, str]:
    """Return the pages by stem: the index first, then by name."""
    files = sorted(HERE.glob("*.md"), key=lambda file: (file.stem != "index", file.stem))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def build_pages(out: Path) -> None:
    """Write every page as HTML; links between pages follow."""
    from markdown2 import markdown  # which pdoc brings along

    texts = pages()
    links = [f'<a href="{stem}.html">{title_of(text)}</a>' for stem, text in texts.items()]
    links += [f'<a href="reference/{top}.html">{top}</a>' for top in ("core", "hw", "apps")]
    for stem, text in texts.items():
        extras = ["fenced-code-blocks", "tables", "header-ids", "code-friendly"]
        body = markdown(text, extras=extras)
        body = re.sub(r'href="([\w-]+)\.md(#[\w-]+)?"', r'href="\1.html\2"', body)
        # other files of the repository do not travel with the pages: they are named
        body = re.sub(r'<a href="\.\./([^"]+)">.*?</a>', r"<code>\1</code>", body)
        head = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{title_of(text)} · Tessera</title><style>{STYLE}</style>"
        )
        page = f"{head}<nav>{' '.join(links)}</nav><main>{body}</main></html>"
        (out / f"{stem}.html").write_text(page, encoding="utf-8")


def modules() -> list[str]:
    """Return the name of every module that its package does not list by itself.

    A package without `__all__` lists all that are in it; one with it, those whose names stand
    there, as where a function is named like its module.
    """
    names = []
    for top in ("core", "hw", "apps"):
        for file in sorted((HERE.parent / top).rglob("*.py")):
            parts = file.relative_to(HERE.parent).with_suffix("").parts
            if parts[-1] != "__main__":
                names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if not _is_listed(name)]


def _is_listed(name: str) -> bool:
    package, _, last = name.rpartition(".")
    if not package:
        return False
    face = getattr(importlib.import_module(package), "__all__", None)
    return face is None or last in face


def build_reference(out: Path) -> None:
    """Write the reference of the packages from their docstrings."""
    import pdoc
    import pdoc.render

    pdoc.render.configure(docformat="numpy", include_undocumented=False, show_source=False)
    with warnings.catch_warnings():
        # pdoc looks for the types of a NamedTuple's fields in the wrong module; it shows their text
        warnings.filterwarnings("ignore", "Error parsing type annotation")
        pdoc.pdoc(*modules(), output_directory=out)


class Addresses(HTMLParser):
    """Collects what a page points to, what it loads, and the ids that can be pointed at."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and the id of one element."""
        for name, value in attrs:
            if name in ("src", "href") and value and not value.startswith("data:"):
                (self.links if tag == "a" else self.loads).append(value)
            if name == "id" and value:
                self.ids.add(value)


def broken(out: Path) -> list[str]:
    """Return links that lead nowhere, and whatever a page would load from the network."""
    pages = {file: Addresses(file.read_text(encoding="utf-8")) for file in out.rglob("*.html")}
    wrong = []
    for file, page in pages.items():
        where = file.relative_to(out)
        wrong += [f"{where} loads {load}" for load in page.loads if load.startswith("http")]
        for link in page.links:
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (file.parent / path).resolve() if path else file
            # pdoc also links to members that it leaves out, as they have no docstring
            known = pages[target].ids if target.parent == out and target in pages else {anchor}
            if not target.exists() or (anchor and anchor not in known):
                wrong.append(f"{where} links to {link}")
    return wrong


def build(out: Path) -> None:
    """Build all into the new folder `out`; a link that leads nowhere is an error."""
    out.mkdir(parents=True)
    shutil.copy(HERE / "tessera.svg", out)
    build_pages(out)
    build_reference(out / "reference")
    if wrong := broken(out.resolve()):
        raise SystemExit("docs/build.py: " + "\n".join(wrong[:20]))


def main() -> None:
    """Build all elsewhere, then take the place of the old documentation."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "build"
        build(fresh)
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.move(fresh, OUT)
    print(OUT / "index.html")


if __name__ == "__main__":
    main()
