"""Checks the pinned versions: what can be checked here, and what a list of advisories knows.

    python .ci/audit.py

Offline: every dependency of every group in pyproject.toml that is installed is pinned in
constraints.txt inside its range, and the environment holds the pinned version. Then pip-audit, if
it is installed, asks PyPI for published advisories on the pins. Exit code 0: all checked, nothing
found; 1: something is wrong; 3: the offline checks passed, the advisories could not be asked.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pinned(text: str) -> dict[str, str]:
    """Give name and version of each line of a constraints file."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def wanted(text: str) -> list[Requirement]:
    """Give all requirements of a pyproject.toml: its own and those of its extras."""
    project = tomllib.loads(text)["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(line) for group in (project["dependencies"], *extras) for line in group]


def problems(needs: list[Requirement], pins: dict[str, str], held: dict[str, str]) -> list[str]:
    """Say which pins are missing, outside their range, or not what the environment holds."""
    out = []
    for need in needs:
        name = canonicalize_name(need.name)
        if name not in pins:
            if name in held:
                out.append(f"{need.name} is installed but not pinned; run `make lock`")
        elif not need.specifier.contains(pins[name], prereleases=True):
            out.append(f"{need.name}: the pin {pins[name]} lies outside {need.specifier}")
    for name, version in pins.items():
        if name in held and held[name].partition("+")[0] != version:
            out.append(f"{name}: installed {held[name]}, pinned {version}; set up again")
    return out


def advisories() -> tuple[list[str], str]:
    """Ask pip-audit; give what it found, and why it could not ask, if so."""
    if importlib.util.find_spec("pip_audit") is None:
        return [], "pip-audit is not installed (pip install pip-audit)"
    words = ["--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *words, "--progress-spinner", "off"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip() or "no answer").splitlines()[-1]
        return [], f"pip-audit could not ask: {said}"
    return judged(packages)


def judged(packages: list[dict[str, object]]) -> tuple[list[str], str]:
    """Read pip-audit's answer: a package that it skipped was not checked, whatever it says."""
    found, skipped = [], []
    for package in packages:
        if "skip_reason" in package:
            skipped.append(str(package["name"]))
        for each in package.get("vulns", []):  # type: ignore[attr-defined]
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {each['id']}, mended in {fixed}")
    why = f"{len(skipped)} of {len(packages)} packages are unknown to the index" if skipped else ""
    return found, why


def main() -> int:
    """Check, and say plainly what was not."""
    pins = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    needs = wanted((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    held = {
        canonicalize_name(each.metadata["Name"]): each.version
        for each in importlib.metadata.distributions()
    }
    wrong = problems(needs, pins, held)
    found, why_not = advisories()
    for line in [*wrong, *found]:
        print(f"audit: {line}")
    print(f"audit: {len(pins)} pins, {len(wrong)} out of order")
    if why_not:
        print(f"audit: NOT CHECKED against advisories: {why_not}")
    else:
        print(f"audit: {len(found)} advisories")
    return 1 if wrong or found else 3 if why_not else 0


if __name__ == "__main__":
    sys.exit(main())
