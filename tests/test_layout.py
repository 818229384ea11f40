"""The house's arrows: imports point down, rooms stay apart, and public faces name what exists."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pace import scale

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("core", "hw", "apps")

# Each floor may import itself and the floors listed.
FLOORS = {
    "core": (),
    "hw": ("core",),
    "apps.lab": ("hw", "core"),
    "apps.chemistry": ("apps.lab", "hw", "core"),
    "apps.weather": ("apps.lab", "hw", "core"),
    "apps.suite": ("apps.chemistry", "apps.weather", "apps.lab", "hw", "core"),
}


def floor_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "apps" and len(parts) > 1:
        return ".".join(parts[:2])
    return parts[0] if parts[0] in FLOORS else None


def imported_modules(source: str, module: str, is_package: bool) -> list[tuple[int, str]]:
    """Every module that the source imports, relative ones resolved, hidden ones included."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = module.split(".")
                base = parts[: len(parts) - node.level + (1 if is_package else 0)]
                prefix = ".".join([*base, *([node.module] if node.module else [])])
            else:
                prefix = node.module or ""
            found += [(node.lineno, prefix)]
            found += [(node.lineno, f"{prefix}.{alias.name}") for alias in node.names]
    return found


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    floor = floor_of(module)
    if floor is None:
        return []
    wrong = []
    for line, name in imported_modules(source, module, is_package):
        target = floor_of(name)
        if target in FLOORS and target != floor and target not in FLOORS[floor]:
            wrong.append(f"{module}:{line} imports {name}")
    return wrong


def source_files() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_point_down():
    wrong = [
        line
        for file in source_files()
        for line in violations(file.read_text(), module_name(file), file.name == "__init__.py")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import apps.lab", "hw.cost"),
        ("def f():\n    from hw.machine import Machine\n", "core.sparse.ops"),
        ("from apps.weather import model", "apps.chemistry.train"),
        ("from ..weather import model", "apps.chemistry.train"),
        ("from apps import suite", "apps.lab.record"),
    ],
)
def test_an_arrow_that_points_up_or_across_is_found(source, module):
    assert len(violations(source, module)) >= 1


def test_packages_come_from_this_checkout():
    for package in PACKAGES:
        file = importlib.import_module(package).__file__
        assert file is not None
        assert Path(file).is_relative_to(ROOT)


def test_public_faces_name_what_exists():
    # Their order is ruff's business (RUF022).
    for file in source_files():
        if file.name != "__init__.py":
            continue
        module = importlib.import_module(module_name(file))
        names = getattr(module, "__all__", [])
        assert [name for name in names if not hasattr(module, name)] == [], module.__name__


def test_no_package_marker_below_tests():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


# The stated bound for `tessera --help`, a bare interpreter included; seconds of tests/pace.py.
HELP_CPU_S = 0.5


def test_help_answers_at_once():
    import resource

    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "apps.suite", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, cpu_s * scale())
    for command in ("demo", "chemistry", "weather", "hw", "report", "data"):
        assert command in done.stdout
    assert best < HELP_CPU_S
