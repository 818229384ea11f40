"""SVG of others inside our page: only shapes and text, no script, no outside address, own ids."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup, escape

from core.errors import DataError

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_SHAPES = {"path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "image", "use"}
_TEXTS = {"text", "tspan", "title", "desc"}
_GROUPS = {"svg", "g", "defs", "symbol", "marker", "clipPath", "mask", "pattern"}
_PAINTS = {"linearGradient", "radialGradient", "stop"}
_TAGS = _SHAPES | _TEXTS | _GROUPS | _PAINTS
_EMBEDDED_IMAGE = re.compile(r"data:image/(png|jpeg);base64,")
_URL = re.compile(r"url\(\s*['\"]?([^)'\"]*)['\"]?\s*\)")


def inline_svg(path: Path, *, prefix: str) -> Markup:
    """Give the drawing in `path` as an `<svg>` element that is safe to put into a page.

    Elements and attributes that could run code or fetch something are left out (scripts, style
    sheets, event handlers, foreign content, metadata, addresses other than ``#id`` and embedded
    pixels), and every id gets `prefix`, so that two drawings in one page cannot collide.

    Raises
    ------
    DataError
        If the file is missing or is not SVG.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the figure {path}: {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise DataError(f"the figure {path} is not SVG: {error}") from error
    if root.tag != f"{_SVG}svg":
        raise DataError(f"the figure {path} is not SVG: its root is {root.tag}")
    if "viewBox" not in root.attrib:
        size = [re.match(r"[\d.]+", root.get(side, "")) for side in ("width", "height")]
        if all(size):
            root.set("viewBox", " ".join(["0 0", *(m.group() for m in size if m)]))
    for side in ("width", "height"):
        root.attrib.pop(side, None)
    return Markup(_written(root, prefix))


def _written(node: ElementTree.Element, prefix: str) -> str:
    tag = node.tag.removeprefix(_SVG) if isinstance(node.tag, str) else ""
    if tag not in _TAGS:
        return ""
    attributes = "".join(
        f' {name}="{escape(value)}"'
        for key, raw in node.attrib.items()
        if (value := _attribute(name := _attribute_name(key), raw, prefix)) is not None
    )
    inside = escape(node.text or "") + Markup("").join(
        Markup(_written(child, prefix)) + escape(child.tail or "") for child in node
    )
    return f"<{tag}{attributes}>{inside}</{tag}>"


def _attribute_name(key: str) -> str:
    return "href" if key == _XLINK_HREF else key


def _attribute(name: str, value: str, prefix: str) -> str | None:
    """Give the value to write, or None where the attribute must not stay."""
    if "{" in name or name.lower().startswith("on"):
        return None
    if name == "id":
        return prefix + value
    if name == "href":
        if value.startswith("#"):
            return f"#{prefix}{value[1:]}"
        return value if _EMBEDDED_IMAGE.match(value) else None
    if "@import" in value or "expression(" in value:
        return None
    if any(not target.startswith("#") for target in _URL.findall(value)):
        return None
    return _URL.sub(lambda match: f"url(#{prefix}{match.group(1)[1:]})", value)
