"""The frame of a figure, as wide as the page and in its own text colour, and the key below it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def svg(width: int, height: int, body: str, label: str) -> str:
    """Return an SVG element of `body`, read aloud as `label`."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="100%" role="img" aria-label="{escape(label)}" '
        f'font-family="sans-serif" font-size="11" fill="currentColor">{body}</svg>'
    )


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return colours with what they stand for; an entry stays together where lines break."""
    body = "".join(
        f'<span style="display:inline-block;margin-right:1em">'
        f'<span style="color:{colour}">&#9632;</span> {escape(text)}</span>'
        for colour, text in entries
    )
    return f'<div style="font-size:85%;margin-bottom:.6em">{body}</div>'
