"""Prose that is run: doctests, the code of the add-a pages, and every command that is named."""

import contextlib
import doctest
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType

import pytest

import unitone
from unitone import cli

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("unitone", "tokenizers", "lm", "codecs", "eval", "recipes", "tests")
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(page for room in ROOMS for page in (ROOT / room).rglob("*.md")),
    ]
    if path.name != "CHANGELOG.md"
)
HOW_TO = sorted((ROOT / "docs").glob("add-a*.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULE = re.compile(r"python3? -m ([A-Za-z_][\w.]*)")
SHORT = re.compile(r"^\$ unitone ([a-z]\w*) ")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
OURS = ("unitone", "tokenizers", "lm", "eval", "recipes")
ONE_SCREEN = 70
"""Lines of an add-a page."""


def module_names() -> list[str]:
    """Return every importable module; codecs, without __init__.py, is walked by itself."""
    names = [m.name for m in pkgutil.walk_packages(unitone.__path__, "unitone.")]
    names += [f"unitone.codecs.{m.name}" for m in pkgutil.iter_modules([str(ROOT / "codecs")])]
    return sorted({name for name in names if not name.endswith("__main__")})


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_code_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = [text for kind, text in fences(page) if kind == "python"]
    assert code
    names: dict[str, object] = {"__name__": page.stem.replace("-", "_")}
    for block in code:
        exec(compile(block, page.name, "exec"), names)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    defined = [value for value in names.values() if isinstance(value, type | FunctionType)]
    for value in defined:
        if value.__module__ == names["__name__"]:
            for example in finder.find(value, globs=dict(names)):
                assert runner.run(example).failed == 0


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_page_fits_a_screen(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= ONE_SCREEN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in MODULE.findall(text):
        assert find_spec(public_name(module.rstrip("."))) is not None, module
    for command in re.findall(r"(?:`|\$ )unitone ([a-z]\w*)", text):
        assert command in cli.COMMANDS, command
    for target in re.findall(r"(?:`|\$ )make ([a-z][\w-]*)", text):
        assert target in make_targets(), target
    for link in LINK.findall(text):
        assert (page.parent / link).exists() or (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every --option after a command in a shell block is one that its ``--help`` names."""
    for module, options in commands(page):
        help_text = help_of(module, capsys)
        for option in options:
            assert re.search(rf"{re.escape(option)}(?![\w-])", help_text), f"{module} {option}"


def fences(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    for kind, text in fences(page):
        if kind not in ("console", "bash", "sh", "shell"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            options = re.findall(r"(?<=\s)--[a-z][\w-]*", line.split("#")[0])
            if (found := MODULE.search(line)) and found[1].split(".")[0] in OURS:
                yield public_name(found[1]), options
            elif found := SHORT.search(line):
                yield cli.COMMANDS[found[1]][0], options


def public_name(module: str) -> str:
    """Return where ``python -m module`` in a checkout finds it: ``unitone.tokenizers.build``."""
    rooms = set(OURS) - {"unitone"}
    return f"unitone.{module}" if module.split(".")[0] in rooms else module


_HELP: dict[str, str] = {}


def help_of(module: str, capsys: pytest.CaptureFixture[str]) -> str:
    if module not in _HELP:
        with contextlib.suppress(SystemExit):  # argparse and tyro end that way
            found = importlib.import_module(module)
            if hasattr(found, "__path__"):  # a folder is run by its __main__
                found = importlib.import_module(f"{module}.__main__")
            found.main(["--help"])
        _HELP[module] = capsys.readouterr().out
    return _HELP[module]


@cache
def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))


def test_json_in_the_docs_is_json() -> None:
    for page in PAGES:
        for kind, text in fences(page):
            if kind == "json":
                for line in text.splitlines():
                    json.loads(line)


def test_no_page_builds_a_tokenizer_on_what_is_scored() -> None:
    lines = [
        line
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if "tokenizers.build " in line and "--manifest" in line
    ]
    assert lines
    assert not [line for line in lines if "--split train" not in line]


def test_commands_of_the_site_are_copied_without_a_prompt() -> None:
    assert "hooks: [.ci/copied_commands.py]" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    spec = spec_from_file_location("copied_commands", ROOT / ".ci" / "copied_commands.py")
    assert spec is not None
    assert spec.loader is not None
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = "Type\n\n```console\n$ make tour  # $ 5\n$ a \\\n  --b\n```\n\n```json\n$ x\n```\n"
    expected = page.replace("console\n$ make", "sh\nmake").replace("$ a", "a")
    assert hook.on_page_markdown(page, page=None) == expected
    for path in (ROOT / "docs").rglob("*.md"):
        shown = hook.on_page_markdown(path.read_text(encoding="utf-8"))
        assert not re.search(r"^ *\$ ", shown, re.MULTILINE), path
