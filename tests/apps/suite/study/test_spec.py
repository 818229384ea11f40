"""A study file becomes points, and what is wrong with one is said before anything runs."""

import pytest

from apps.suite.study.spec import flat, read_study, resolve
from core.errors import ConfigError


def points_of(toy, text=None):
    folder, applications = toy
    if text is not None:
        (folder / "study.toml").write_text(text)
    return resolve(read_study(folder / "study.toml"), applications)


def test_a_grid_is_every_combination_with_every_seed(toy):
    points = points_of(toy)
    assert len(points) == 2 * 2 * 2 * 2
    assert points[0].levers == {"variant.density": 1.0, "variant.block": 16, "train.rate": 1.0}
    assert [p.seed for p in points[:4]] == [0, 1, 0, 1]
    assert "train.batch=20" in points[0].overrides


def test_blocks_of_a_dense_layer_are_one_run(toy):
    points = points_of(toy)
    # of 16 points the 4 dense ones with blocks of 8 are those with blocks of 16
    assert len({p.key for p in points}) == 12
    by = {(*p.levers.values(), p.seed): p.key for p in points}
    assert by[1.0, 8, 2.0, 1] == by[1.0, 16, 2.0, 1]
    assert by[0.5, 8, 2.0, 1] != by[0.5, 16, 2.0, 1]


def test_listed_points_join_the_grid_with_the_values_they_leave_out(toy):
    head = '[[sweep]]\napplication = "toy"\n'
    text = head + '[sweep.grid]\n"train.rate" = [1, 2]\n[[sweep.points]]\ntrain.batch = 5\n'
    points = points_of(toy, text)
    assert [p.levers for p in points] == [
        {"train.rate": 1, "train.batch": 10},
        {"train.rate": 2, "train.batch": 10},
        {"train.rate": 1.0, "train.batch": 5},
    ]
    alone = points_of(toy, head + '[[sweep.points]]\nvariant = "sparse-16x16-75"\n')
    assert [p.levers for p in alone] == [{"variant": "sparse-16x16-75"}]


def test_a_sample_is_part_of_the_grid_and_always_the_same(toy):
    whole = {p.key for p in points_of(toy)}
    folder, _ = toy
    text = (folder / "study.toml").read_text().replace("[sweep.grid]", "sample = 3\n[sweep.grid]")
    some = points_of(toy, text)
    assert len(some) == 3 * 2
    assert {p.key for p in some} < whole
    assert points_of(toy, text) == some


def test_nested_tables_become_dotted_keys():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e.f": 3}) == {"a.b": 1, "a.c.d": [2], "e.f": 3}


SWEEP = '[[sweep]]\napplication = "toy"\n'
BAD = [
    ("title = ", "is not valid TOML"),
    ("sweep = 3", r"begun with \[\[sweep\]\]"),
    ('break_even = "none"', "asks for nothing"),
    ("sedes = [1]", r"unknown key 'sedes' in .*study.toml; did you mean 'seeds'"),
    ('machines = ["ipu_gc20"]', "no machine is named 'ipu_gc20'; did you mean 'ipu_gc200'"),
    ("break_even.widht = [1]", r"unknown key 'widht' in .*\[break_even\]; did you mean 'width'"),
    (SWEEP + "gird = {}", r"unknown key 'gird' in .*\[\[sweep\]\] 1; did you mean 'grid'"),
    (SWEEP + SWEEP, "two sweeps are named 'toy'"),
    ('[[sweep]]\napplication = "toi"', "no application is named 'toi'; did you mean 'toy'"),
    (
        SWEEP + "grid.variant.densty = [1]",
        r"unknown key 'densty' in \[\[sweep\]\] toy \[variant\]; did you mean 'density'",
    ),
    (SWEEP + "grid.train.rate = 3", "the lever train.rate needs a list of values, got 3"),
    (SWEEP + "grid.train.rate = []", "the lever train.rate needs a list of values"),
    (SWEEP + 'grid.variant.density = ["x"]', r"\[\[sweep\]\] toy \[variant\]: density: .*, got"),
    (SWEEP + "grid.variant.density = [2.0]", "less than or equal to 1, got 2.0"),
]


@pytest.mark.parametrize(("text", "match"), BAD)
def test_what_is_wrong_is_said(toy, text, match):
    with pytest.raises(ConfigError, match=match):
        points_of(toy, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the study .*no\.toml: No such file"):
        read_study(tmp_path / "no.toml")
