"""Figures repeat bit for bit and take the colour of the page."""

import re
from xml.etree import ElementTree

from apps.lab.figures import COLORS, new_figure, save_svg


def draw(path):
    figure, (left, _right) = new_figure(1, 2)
    left.plot([1, 2, 3], [3, 1, 2], label="series")
    left.set_xlabel("pK < 3")
    left.set_title("A title")
    left.legend()
    return save_svg(figure, path)


def test_the_same_figure_is_the_same_bits_without_a_date(tmp_path):
    first, second = draw(tmp_path / "a.svg"), draw(tmp_path / "b.svg")
    assert first.read_bytes() == second.read_bytes()
    assert not re.search(r"<dc:date>", first.read_text())


def test_text_is_text_and_ink_is_the_pages(tmp_path):
    text = draw(tmp_path / "a.svg").read_text()
    root = ElementTree.fromstring(text)
    words = {
        "".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"pK < 3", "A title", "series"} <= words
    colours = set(re.findall(r"#[0-9a-f]{6}\b", text))
    assert colours <= set(COLORS), colours
    assert root.get("fill") == "currentColor"
