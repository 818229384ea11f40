"""The frame of a figure: as wide as the page, in the page's own text colour, light or dark."""

from __future__ import annotations

from html import escape


def svg(width: int, height: int, body: str, label: str) -> str:
    """Return an SVG element of `body`, read aloud as `label`."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="100%" role="img" aria-label="{escape(label)}" '
        f'font-family="sans-serif" font-size="11" fill="currentColor">{body}</svg>'
    )
