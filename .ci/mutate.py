"""Mutation check: break a sampled line of `core` or `hw` and see whether a test notices.

    python .ci/mutate.py [--package core] [--n 100] [--seed 0] [--show]

First the tests of the package run once, under coverage that remembers which test reached which
line. Then each mutant (one comparison, operator, constant, condition or call changed) runs, in a
forked process, the quickest tests that reach its line, those of its own mirror first. A mutant that
fails a test, or runs into the time limit, is killed. One that nothing reaches has survived.
"""

from __future__ import annotations

import argparse
import ast
import base64
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUDGET_S = 12.0  # of tests for one mutant
GOAL = 0.8
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn},
    **{ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div},
    **{ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.And: ast.Or, ast.Or: ast.And, ast.LShift: ast.RShift, ast.RShift: ast.LShift},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
NAMES = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "any": "all", "all": "any",
         "floor": "ceil", "ceil": "floor", "zeros": "ones", "ones": "zeros"}  # fmt: skip
QUIET = {"__repr__", "__str__", "describe"}  # what they say is judged by eye


class Site(NamedTuple):
    """One place to break: the `index`-th of its file."""

    file: Path
    index: int
    line: int
    what: str


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every node that can be broken, with a name for the break; words and types are left alone."""
    if isinstance(tree, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(tree, ast.FunctionDef) and tree.name in QUIET:
        return
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    if isinstance(tree, ast.Compare) and type(tree.ops[0]) in SWAPS:
        yield tree, type(tree.ops[0]).__name__
    elif (isinstance(tree, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(tree.op) in SWAPS) or (
        isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not | ast.USub)
    ):
        yield tree, type(tree.op).__name__
    elif isinstance(tree, ast.Constant) and isinstance(tree.value, bool | int | float):
        yield tree, f"constant {tree.value}"
    elif isinstance(tree, ast.If | ast.IfExp):
        yield tree, "condition"
    elif isinstance(tree, ast.Call):
        name = tree.func.attr if isinstance(tree.func, ast.Attribute) else ""
        name = tree.func.id if isinstance(tree.func, ast.Name) else name
        if name in NAMES:
            yield tree, f"call {name}"
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from sites(child)


def broken(tree: ast.Module, index: int) -> ast.Module:
    """Give the tree with its `index`-th site changed."""
    tree = copy.deepcopy(tree)
    node = [node for node, _ in sites(tree)][index]
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.UnaryOp):  # not x -> bool(x), -x -> +x
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant):
        old = node.value
        assert isinstance(old, bool | int | float)
        node.value = not old if isinstance(old, bool) else old + 1 if abs(old) < 3 else old * 1.5
        if isinstance(old, int) and not isinstance(old, bool):
            node.value = int(node.value)
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            node.func.attr = NAMES[node.func.attr]
        elif isinstance(node.func, ast.Name):
            node.func.id = NAMES[node.func.id]
    return ast.fix_missing_locations(tree)


def all_sites(package: str) -> list[Site]:
    """Every site of the package's modules."""
    out = []
    for file in sorted((ROOT / package).rglob("*.py")):
        if file.name not in ("__init__.py", "__main__.py"):
            found = sites(ast.parse(file.read_text(encoding="utf-8")))
            out += [Site(file, i, node.lineno, what) for i, (node, what) in enumerate(found)]  # type: ignore[attr-defined]
    return out


class Broken(importlib.machinery.SourceFileLoader):
    """Loads one module with one site changed, past any compiled copy."""

    site: Site

    def get_code(self, fullname: str):  # noqa: D102
        tree = ast.parse(self.site.file.read_text(encoding="utf-8"))
        return compile(broken(tree, self.site.index), self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module to break before anything else does."""

    def __init__(self, site: Site):
        self.site = site
        self.name = ".".join(site.file.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, fullname, path=None, target=None):  # noqa: D102
        if fullname != self.name:
            return None
        loader = Broken(fullname, str(self.site.file))
        loader.site = self.site
        return importlib.util.spec_from_file_location(fullname, self.site.file, loader=loader)


class Reach:
    """Which tests reach which line, and how long each takes."""

    def __init__(self, package: str):
        import coverage

        self.package, self.seconds, self.failed = package, Counter[str](), ""
        self.coverage = coverage.Coverage(
            data_file=None, source=[str(ROOT / package)], config_file=False
        )

    def pytest_runtest_protocol(self, item):  # noqa: D102
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report) -> None:  # noqa: D102
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed = f"{report.nodeid}: {str(report.longrepr)[-1500:]}"

    def measure(self) -> None:
        """Run the package's tests once; they must pass."""
        self.coverage.start()
        code = run_tests([f"tests/{self.package}"], [self])
        self.coverage.stop()
        if code:
            sys.exit(
                f"mutate: the tests of {self.package} fail unbroken; mend them first\n{self.failed}"
            )

    def tests_of(self, site: Site) -> list[str]:
        """Tests that reach the line, mirror first, then by time, within the budget."""
        data = self.coverage.get_data()
        lines = data.contexts_by_lineno(str(site.file))
        found = set(lines.get(site.line, [])) - {""}
        if not found and "" in lines.get(site.line, []):  # reached at import: whoever uses the file
            found = {name for names in lines.values() for name in names} - {""}
        mirror = f"test_{site.file.stem}.py"
        order = sorted(found, key=lambda name: (mirror not in name, self.seconds[name]))
        spent, out = 0.0, []
        for name in order:
            spent += self.seconds[name]
            if out and spent > BUDGET_S:
                break
            out.append(name)
        return out


def run_tests(names: list[str], plugins: list[object] | None = None) -> int:
    """Run pytest in this process, quietly; give its exit code."""
    import pytest

    with open(os.devnull, "w") as nowhere:
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=line"]
            # what judges by time says nothing under a tracer
            words += ["--ignore-glob=*test_throughput.py", "--ignore-glob=*test_limits.py"]
            return int(pytest.main([*words, "--hypothesis-seed=0", *names], plugins=plugins or []))
        finally:
            os.dup2(kept, 1)


def is_killed(site: Site, tests: list[str], limit_s: float) -> str:
    """Run the tests against the mutant in a child; say how it died, or "" if it lives."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.meta_path.insert(0, Finder(site))
            code = run_tests(tests)
        finally:
            os._exit(0 if code == 0 else 1)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "" if status == 0 else "failed"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "time"


def measured(package: str) -> Reach:
    """Reach of the package's tests, measured in a child, so that this process loads none of it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        reach = Reach(package)
        reach.measure()
        data = base64.b64encode(reach.coverage.get_data().dumps()).decode()
        with os.fdopen(write, "w") as pipe:
            json.dump([data, reach.seconds], pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        sys.exit(f"mutate: measuring the tests of {package} failed")
    data, seconds = json.loads(text)
    reach = Reach(package)
    reach.coverage.get_data().loads(base64.b64decode(data))
    reach.seconds.update(seconds)
    return reach


def main() -> int:
    """Break, test, count."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--package", action="append", choices=["core", "hw"])
    words.add_argument("--n", type=int, default=100, help="mutants of each package")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--within-s", type=float, default=1e9, help="stop after that many seconds")
    asked = words.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    for name in ("torch", "numpy", "scipy.sparse", "ml_dtypes", "pytest", "coverage"):
        importlib.import_module(name)  # once, before the forks
    is_good = True
    for package in asked.package or ["core", "hw"]:
        begin = time.monotonic()
        reach = measured(package)
        everything = all_sites(package)
        print(f"{package}: {len(everything)} sites, tests measured in "
              f"{time.monotonic() - begin:.0f} s", flush=True)  # fmt: skip
        picked = random.Random(asked.seed).sample(everything, min(asked.n, len(everything)))
        count: Counter[str] = Counter()
        for site in picked:
            tests = reach.tests_of(site)
            took_s = sum(reach.seconds[name] for name in tests)
            fate = is_killed(site, tests, 30.0 + 5 * took_s) if tests else ""
            count["killed" if fate else "survived"] += 1
            if not fate:
                where = f"{site.file.relative_to(ROOT)}:{site.line}"
                print(f"  survived {where}: {site.what} ({len(tests)} tests reach it)", flush=True)
            if time.monotonic() - begin > asked.within_s:
                break
        share = count["killed"] / count.total()
        is_good = is_good and share >= GOAL
        print(f"{package}: {count['killed']} of {count.total()} mutants killed, {share:.0%} "
              f"(goal {GOAL:.0%}), seed {asked.seed}", flush=True)  # fmt: skip
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
