"""Builds the documentation: `python docs/build.py` writes docs/build/index.html.

The pages are the Markdown files beside this one; the reference is made from docstrings by pdoc.
Everything works offline.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

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
    links.append('<a href="reference/core.html">core</a>')
    links.append('<a href="reference/hw.html">hw</a><a href="reference/apps.html">apps</a>')
    for stem, text in texts.items():
        extras = ["fenced-code-blocks", "tables", "header-ids", "code-friendly"]
        body = markdown(text, extras=extras)
        body = re.sub(r'href="([\w-]+)\.md(#[\w-]+)?"', r'href="\1.html\2"', body)
        head = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{title_of(text)} · Tessera</title><style>{STYLE}</style>"
        )
        page = f"{head}<nav>{' '.join(links)}</nav><main>{body}</main></html>"
        (out / f"{stem}.html").write_text(page, encoding="utf-8")


def build_reference(out: Path) -> None:
    """Write the reference of the packages from their docstrings."""
    arguments = ["--docformat", "numpy", "--no-include-undocumented", "-o", str(out)]
    command = [sys.executable, "-m", "pdoc", *arguments, "core", "hw", "apps"]
    done = subprocess.run(command, cwd=HERE.parent, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"docs/build.py: pdoc failed:\n{done.stderr[-2000:]}")


def main() -> None:
    """Build all into a new folder, then put it in the place of the old one."""
    fresh = OUT.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    shutil.copy(HERE / "tessera.svg", fresh)
    build_pages(fresh)
    build_reference(fresh / "reference")
    shutil.rmtree(OUT, ignore_errors=True)
    fresh.rename(OUT)
    print(OUT / "index.html")


if __name__ == "__main__":
    main()
