"""The guides say what is true: their Python runs, their commands and links exist."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

from apps.suite.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "studies/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = compile("\n".join(blocks(page, "python")), str(page), "exec")
    if "SLURMCluster" not in code.co_names:  # a cluster of its own: read, not run
        exec(code, {"__name__": "page"})


def commands(page):
    """Every `tessera ...` line in code blocks, and every inline one with an option."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line for block in re.findall(r"```\w*\n(.*?)```", text, re.S) for line in block.split("\n")
    ]
    lines += re.findall(r"`(tessera [^`]*--[^`]*)`", text)
    # `python -m apps.chemistry train`, under torchrun or not, is `tessera chemistry train`
    lines = [re.sub(r"^.* -m apps\.(chemistry|weather) ", r"tessera \1 ", line) for line in lines]
    return [line.split("   ")[0].strip() for line in lines if line.strip().startswith("tessera ")]


def resolve(words):
    """Walk down the command tree; give the command and the words that are left."""
    module, attribute, _ = COMMANDS[words[0]]
    command = typer.main.get_command(getattr(importlib.import_module(module), attribute))
    words = words[1:]
    if hasattr(command, "commands"):
        if words and words[0] in command.commands:
            return command.commands[words[0]], words[1:]
        if words[:1] and "run" in command.commands and words[0].endswith(".toml"):
            return command.commands["run"], words
        raise KeyError(words)
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_exist_with_their_options(page):
    for line in commands(page):
        command, words = resolve(shlex.split(line)[1:])
        if command.context_settings.get("ignore_unknown_options"):
            continue  # forwards its words
        known = {"--help"}
        known |= {name for option in command.params for name in option.opts + option.secondary_opts}
        for word in words:
            if word.startswith("-"):
                assert word.split("=")[0] in known, f"{page.name}: {line!r} has no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("line", ["chemistry trian", "wether train", "hw"])
def test_a_wrong_command_is_caught(line):
    with pytest.raises(KeyError):
        resolve(line.split())
