"""Drawings of others come in without anything that runs, fetches or collides."""

import pytest

from apps.lab.report.svg import inline_svg
from core.errors import DataError

SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def inlined(tmp_path, inside, attributes='viewBox="0 0 1 1"'):
    file = tmp_path / "a.svg"
    file.write_text(f'<?xml version="1.0"?><!-- c --><svg {SVG} {attributes}>{inside}</svg>')
    return str(inline_svg(file, prefix="p1-"))


def test_shapes_and_text_stay(tmp_path):
    inside = '<g style="fill: #123456"><text x="1">a &lt; b<tspan>c</tspan> d</text></g>'
    out = '<g style="fill: #123456"><text x="1">a &lt; b<tspan>c</tspan> d</text></g>'
    assert inlined(tmp_path, inside) == f'<svg viewBox="0 0 1 1">{out}</svg>'


def test_ids_get_the_prefix_wherever_they_are_named(tmp_path):
    inside = (
        '<defs><path id="m"/></defs><use xlink:href="#m" clip-path="url(#q)"/>'
        "<use href='#m' style=\"fill: url('#g')\"/>"
    )
    out = inlined(tmp_path, inside)
    assert 'id="p1-m"' in out
    assert out.count('href="#p1-m"') == 2
    assert 'clip-path="url(#p1-q)"' in out
    assert "fill: url(#p1-g)" in out


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<g onload="alert(1)"/>',
        '<g onLoad="alert(1)"/>',
        "<style>* { fill: red }</style>",
        '<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">hi alert</p></foreignObject>',
        "<metadata>http://example.org alert</metadata>",
        '<image href="http://example.org/a.png"/>',
        '<image xlink:href="data:image/svg+xml;base64,alert"/>',
        '<use href="other.svg#a"/>',
        '<a href="javascript:alert(1)"><path/></a>',
        "<path style=\"fill: url('http://example.org/a')\"/>",
        '<path style="fill: url(//example.org/a)"/>',
        '<path style="@import x"/>',
        '<animate attributeName="href" values="javascript:alert(1)"/>',
        '<set attributeName="onclick" to="alert(1)"/>',
        '<path xmlns:e="http://example.org/ns" e:kind="alert"/>',
    ],
)
def test_what_runs_or_fetches_is_left_out(tmp_path, inside):
    out = inlined(tmp_path, inside)
    for word in ("alert", "example.org", "script", "style", "onload", "other.svg", "animate", "@"):
        assert word not in out.lower()


def test_embedded_pixels_stay_and_the_size_becomes_a_view_box(tmp_path):
    inside = '<image xlink:href="data:image/png;base64,AAAA" width="3"/>'
    out = inlined(tmp_path, inside, attributes='width="360pt" height="200.5pt"')
    assert out == (
        '<svg viewBox="0 0 360 200.5"><image href="data:image/png;base64,AAAA" width="3"></image>'
        "</svg>"
    )


def test_attributes_are_escaped(tmp_path):
    assert 'aria-label="&#34;&gt;&lt;b&gt;"' in inlined(
        tmp_path, "<g aria-label='&quot;&gt;&lt;b&gt;'/>"
    )


def test_what_is_not_svg_says_so(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the figure .*b\.svg: No such file"):
        inline_svg(tmp_path / "b.svg", prefix="")
    (tmp_path / "b.svg").write_text("<svg")
    with pytest.raises(DataError, match=r"b\.svg is not SVG: "):
        inline_svg(tmp_path / "b.svg", prefix="")
    (tmp_path / "b.svg").write_text("<html/>")
    with pytest.raises(DataError, match="its root is html"):
        inline_svg(tmp_path / "b.svg", prefix="")
