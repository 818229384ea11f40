"""Machine files: every shipped one is whole and plausible, and every slip is named."""

import copy
import dataclasses
import tomllib

import pytest

from core.errors import MachineError
from hw.formats import FORMAT_BYTE
from hw.machine import (
    KINDS,
    MACHINE_DIR,
    MARKS,
    Machine,
    TileMachine,
    load_machine,
    machine_from_table,
    machine_names,
)

# The published peak outruns idle-free power by no more than a board's rating; the arithmetic alone
# (multiply-adds at peak rate) must stay below it, or an energy is off by a factor.
FASTEST = {"tile": "fp16", "gpu": "fp16", "systolic": "bf16"}


def table_of(name: str) -> dict:
    return tomllib.loads((MACHINE_DIR / f"{name}.toml").read_text())


@pytest.fixture
def bow() -> dict:
    return copy.deepcopy(table_of("ipu_bow"))


def test_fp8_doubles_the_rate_where_it_exists():
    c600 = load_machine("ipu_c600")
    assert c600.mac_per_s("fp8_e4m3") == 2 * c600.mac_per_s("fp16")
    assert load_machine("ipu_bow").native("fp8_e4m3") == "fp16"


def test_the_four_first_machines_ship():
    assert {"a100", "ipu_bow", "ipu_gc200", "tpu_v3"} <= set(machine_names())


@pytest.mark.parametrize("name", machine_names())
class TestShipped:
    def test_name_matches_file_and_all_numbers_have_a_source(self, name):
        machine = load_machine(name)
        assert machine.name == name
        numbers = [f for f in dataclasses.fields(machine) if f.metadata]
        expected = set()
        for f in numbers:
            value = getattr(machine, f.name)
            expected |= {f"{f.name}.{k}" for k in value} if "by_format" in f.metadata else {f.name}
        assert set(machine.sources) == expected
        assert all(s.mark in MARKS and len(s.text) > 3 for s in machine.sources.values())

    def test_every_format_resolves_to_a_native_one(self, name):
        machine = load_machine(name)
        assert {machine.native(f) for f in FORMAT_BYTE} <= set(machine.mac_per_cycle)

    def test_power_at_peak_rate_stays_below_the_board(self, name):
        machine = load_machine(name)
        f = FASTEST[machine.kind]
        arithmetic_w = machine.mac_per_s(f) * machine.mac_pj[f] * 1e-12
        assert machine.static_w + arithmetic_w < machine.board_w

    def test_units_reach_the_published_peak(self, name):
        machine = load_machine(name)
        for f, peak in machine.peak_flop_per_s.items():
            assert 2 * machine.mac_per_s(f) == pytest.approx(peak, rel=0.03)


def test_bow_figures_by_hand():
    bow = load_machine("ipu_bow")
    assert isinstance(bow, TileMachine)
    # 1472 tiles x 64 multiply-adds x 1.85 GHz
    assert bow.mac_per_s("fp16") == 1472 * 64 * 1.85e9
    assert bow.device_memory_byte == 1472 * (638_976 - 65_536)
    assert bow.native("bf16") == "fp16"
    assert bow.native("int64") == "fp32"


def test_loading_twice_gives_the_same_object_and_a_changed_file_another(tmp_path, bow):
    assert load_machine("a100") is load_machine("a100")
    machine = load_machine("a100")
    assert load_machine(machine) is machine
    path = tmp_path / "mine.toml"
    text = (MACHINE_DIR / "ipu_bow.toml").read_text()
    path.write_text(text)
    with pytest.raises(MachineError, match="name 'ipu_bow' is that of a machine that ships"):
        load_machine(path)
    path.write_text(text.replace('name = "ipu_bow"', 'name = "mine"'))
    assert load_machine(path).clock_hz == 1.85e9
    path.write_text(path.read_text().replace("value = 1.85e9", "value = 1.84e9"))
    assert load_machine(str(path)).clock_hz == 1.84e9


# --- slips ------------------------------------------------------------------------------------


def refuse(table: dict, match: str) -> None:
    with pytest.raises(MachineError, match=match):
        machine_from_table(table, where="mine.toml")


def test_missing_field(bow):
    del bow["clock_hz"]
    refuse(
        bow, r"mine\.toml: missing field clock_hz; clock_hz must be a number in \[2e\+08, 4e\+09"
    )


def test_a_machine_like_another_has_a_name_of_its_own():
    refuse({"like": "ipu_bow"}, r"mine\.toml: name must be a text, it is missing")
    refuse({"like": "ipu_bow", "name": " "}, r"mine\.toml: name must be a text, got ' '")
    machine = machine_from_table({"like": "ipu_bow", "name": "x"}, where="mine.toml")
    assert (machine.name, machine.title) == ("x", "x, like Graphcore Bow (Mk2, wafer on wafer)")
    titled = machine_from_table({"like": "a100", "name": "x", "title": "X"}, where="mine.toml")
    assert titled.title == "X"


def test_unknown_field_names_the_near_miss(bow):
    bow["n_tiles"] = bow["n_tile"]
    refuse(bow, r"unknown field 'n_tiles' for a TileMachine; did you mean 'n_tile'\?")


def test_a_format_without_rate_or_substitute_names_the_file(bow):
    bow["substitute"] = {"tf32": "binary"}
    refuse(bow, r"\.toml: machine \S+: no rate and no substitute for format")
    bow["substitute"] = {"tf32": ["fp32"]}
    refuse(bow, r"\.toml: substitute must be a table from a format to the one computed in instead")


def test_implausible_number(bow):
    bow["peak_flop_per_s"]["fp16"]["value"] = 1.792e15
    refuse(bow, r"peak_flop_per_s\.fp16 = 1\.792e\+15, but 2 x clock_hz x 1472 units")
    bow["clock_hz"]["value"] = 1.85
    refuse(bow, r"clock_hz = 1\.85 is implausible, expected a number in .*check its unit")


@pytest.mark.parametrize("value", ["1.85e9", True, float("nan"), float("inf"), None, 10**400])
def test_no_number(bow, value):
    bow["clock_hz"]["value"] = value
    refuse(bow, r"clock_hz must be a number in")


def test_code_leaves_room(bow):
    bow["code_byte"]["value"] = bow["tile_memory_byte"]["value"]
    refuse(bow, r"code_byte = 638976 leaves nothing of tile_memory_byte = 638976; one of them is")


def test_fraction_of_a_tile(bow):
    bow["n_tile"]["value"] = 1472.5
    refuse(bow, r"n_tile must be a whole number, got 1472\.5")


@pytest.mark.parametrize("name", ["ipu_bow", "a100", "tpu_v3"])
def test_both_ends_of_an_interval_are_plausible_and_nothing_beyond(name):
    table = table_of(name) if "like" not in table_of(name) else table_of("ipu_gc200")
    for f in dataclasses.fields(KINDS[table["kind"]]):
        if not f.metadata or "by_format" in f.metadata or "has_range" in f.metadata:
            continue
        low, high = f.metadata["interval"]
        whole = f.type == "int"
        for value, is_plausible in ((low, True), (high, True), (high * 1.01 + whole, False),
                                    (low * 0.99 - (whole or low == 0), False)):  # fmt: skip
            changed = copy.deepcopy(table)
            changed[f.name]["value"] = int(value) if whole else value
            try:
                machine_from_table(changed, where="mine.toml")
                said = ""
            except MachineError as error:
                said = str(error)
            assert (f"{f.name} = " in said and "implausible" in said) is not is_plausible, f.name


def test_number_without_source_or_mark(bow):
    bow["clock_hz"] = 1.85e9
    refuse(bow, r"clock_hz must be written \{ value = .*got 1850000000\.0")
    bow["clock_hz"] = {"value": 1.85e9, "mark": "guess", "source": "x"}
    refuse(bow, r"mark of clock_hz must be one of read, secondary, .*got 'guess'")
    bow["clock_hz"] = {"value": 1.85e9, "mark": "read", "source": " "}
    refuse(bow, r"clock_hz has no source")


def test_the_range_of_an_energy(bow):
    bow["static_w"]["low"] = 70
    refuse(bow, r"static_w = 66 lies outside its own range, 70 to 91")
    bow["static_w"]["low"] = "low"
    refuse(bow, r"static_w\.low must be a number in \[5, 400\], got 'low'")
    del bow["static_w"]["low"]
    refuse(bow, r"static_w must be written .* low = \.\.\., high = \.\.\.,")
    del bow["static_w"]["high"]
    assert machine_from_table(bow, where="mine.toml").ranges["static_w"] == (33, 132)
    bow["clock_hz"]["low"] = 1e9
    refuse(bow, r"clock_hz must be written")


def test_formats(bow):
    bow["mac_pj"]["fp7"] = bow["mac_pj"]["fp16"]
    refuse(bow, r"mac_pj\.fp7 is no format; known are fp64")
    del bow["mac_pj"]["fp7"], bow["mac_pj"]["fp16"]
    refuse(bow, r"mac_per_cycle has fp16, which mac_pj has not; a table by format is stated as")


def test_format_without_rate_or_substitute(bow):
    del bow["substitute"]["bf16"]
    refuse(bow, r"no rate and no substitute for format 'bf16'; native formats are fp16, fp32")
    bow["substitute"].update({"bf16": "tf32", "tf32": "bf16"})
    refuse(bow, r"no rate and no substitute for format")


def test_texts_and_kind(bow):
    bow["title"] = 3
    refuse(bow, r"title must be a text, got 3")
    bow["title"] = "x"
    bow["kind"] = "cpu"
    refuse(bow, r"kind must be one of tile, gpu, systolic, got 'cpu'")
    bow["kind"] = "tile"
    bow["mac_pj"] = {"value": 1, "mark": "read", "source": "x"}
    refuse(bow, r"mac_pj must be a table of numbers by format")


def test_files_and_names(tmp_path):
    with pytest.raises(MachineError, match=r"no machine 'ipu_boww'.*did you mean 'ipu_bow'\?"):
        load_machine("ipu_boww")
    with pytest.raises(MachineError, match="does not exist"):
        load_machine(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(MachineError, match=r"broken\.toml: not a readable TOML file"):
        load_machine(broken)
    broken.write_text(f"clock_hz = {'9' * 5000}")
    with pytest.raises(MachineError, match=r"broken\.toml: not a readable TOML file: Exceeds"):
        load_machine(broken)


def test_a_machine_like_another_states_what_differs():
    table = {
        "like": "ipu_bow",
        "name": "mine",
        "title": "Mine",
        "n_tile": {"value": 2944, "mark": "derived", "source": "twice the tiles"},
        "peak_flop_per_s": {"fp16": {"value": 700e12, "mark": "derived", "source": "twice"}},
    }
    machine = machine_from_table(table, where="mine.toml")
    bow = load_machine("ipu_bow")
    assert (machine.name, machine.n_unit, machine.clock_hz) == ("mine", 2944, bow.clock_hz)
    assert machine.peak_flop_per_s == {"fp16": 700e12}
    assert machine.sources["clock_hz"] == bow.sources["clock_hz"]
    refuse({**table, "like": "cray"}, r"mine\.toml: like must name one of a100, .*got 'cray'")
    refuse({**table, "clok_hz": 3}, r"unknown field 'clok_hz'.*did you mean 'clock_hz'\?")


def test_base_class_has_no_units():
    assert set(KINDS) == {"tile", "gpu", "systolic"}
    assert all(issubclass(kind, Machine) for kind in KINDS.values())
