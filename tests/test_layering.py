"""The arrows between the rooms, the links, and the one file that must not exist (STYLE 3.2)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "tokenizers": set(),
    "codecs": {"tokenizers"},
    "lm": {"tokenizers", "codecs"},
    "eval": {"tokenizers", "codecs", "lm"},
    "recipes": {"tokenizers", "codecs", "lm", "eval"},
}
DOORS = {"__init__", "cli", "__main__", "doctor"}
"""Modules of ``unitone/`` that may look up at the rooms; no room looks at them."""


def imported_names(source: str) -> set[str]:
    """Return every dotted name that ``source`` imports; ``import x`` and ``from x import y``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.add("." * node.level + (node.module or ""))
            else:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(source: str, *, place: str) -> list[str]:
    """Return the imports that ``source`` may not make; ``place`` is its path in the checkout."""
    folder, *rest = place.split("/")
    module = rest[-1].removesuffix(".py")
    door = folder == "unitone" and len(rest) == 1 and module in DOORS
    found = []
    for name in sorted(imported_names(source)):
        first, *after = name.split(".")
        if name.startswith("."):
            found.append(f"{place}: relative import {name}")
        elif first in MAY_IMPORT and first != "codecs":  # ``codecs`` is the standard library's
            found.append(f"{place}: import {name}, spell it unitone.{name}")
        elif first == "unitone" and after and not door:
            target = after[0]
            allowed = MAY_IMPORT[folder] | {folder} if folder in MAY_IMPORT else set()
            if (target in MAY_IMPORT and target not in allowed) or target in DOORS:
                found.append(f"{place}: {folder} may not import {name}")
    return found


def sources() -> list[Path]:
    rooms = [path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py")]
    foundation = [
        path
        for path in (ROOT / "unitone").rglob("*.py")
        if path.relative_to(ROOT / "unitone").parts[0] not in MAY_IMPORT
    ]
    return sorted(rooms + foundation)


def test_imports_follow_the_layers() -> None:
    files = sources()
    assert len(files) > 10
    found = [
        line
        for path in files
        for line in violations(
            path.read_text(encoding="utf-8"), place=path.relative_to(ROOT).as_posix()
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("tokenizers/kmeans/units.py", "from unitone.lm.data.vocabulary import Vocabulary"),
        ("tokenizers/kmeans/units.py", "from unitone import codecs"),
        ("codecs/dac.py", "import unitone.lm.data.vocabulary"),
        ("lm/decoder/model.py", "from unitone.eval.wer import wer"),
        ("eval/wer.py", "def f():\n    from unitone.recipes import tour"),
        ("unitone/files.py", "from unitone.tokenizers import units"),
        ("unitone/nn/norm.py", "import unitone.lm"),
        ("recipes/tour/tour.py", "from unitone.cli import main"),
        ("tokenizers/kmeans/units.py", "from .kmeans import fit"),
        ("tokenizers/kmeans/units.py", "from . import kmeans"),
        ("lm/decoder/model.py", "from tokenizers.kmeans.units import Units"),
    ],
)
def test_a_forbidden_import_is_caught(place: str, source: str) -> None:
    assert violations(source, place=place)


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("lm/decoder/model.py", "from unitone.tokenizers.kmeans.units import Units"),
        ("lm/decoder/model.py", "from unitone.lm.data.vocabulary import Vocabulary"),
        ("tokenizers/kmeans/units.py", "from unitone.errors import ConfigError\nimport unitone"),
        ("tokenizers/kmeans/units.py", "import codecs"),
        ("recipes/tour/tour.py", "import unitone.eval.report"),
        ("unitone/cli.py", "from unitone.recipes import tour"),
    ],
)
def test_an_allowed_import_passes(place: str, source: str) -> None:
    assert not violations(source, place=place)


def test_folders_of_the_foundation_stand_by_themselves() -> None:
    """Corpora, network blocks, training and reports: none needs another."""
    inside = {"corpus", "nn", "train", "report"}
    for folder in inside:
        for path in (ROOT / "unitone" / folder).glob("*.py"):
            names = imported_names(path.read_text(encoding="utf-8"))
            used = {name.split(".")[1] for name in names if name.startswith("unitone.")}
            assert used & inside <= {folder}, path


def families() -> dict[str, set[str]]:
    """Return the model families, and every name that the files of each import."""
    return {
        folder.parent.name: {
            name
            for path in folder.parent.glob("*.py")
            for name in imported_names(path.read_text(encoding="utf-8"))
        }
        for folder in (ROOT / "lm").glob("*/__init__.py")
        if "PREFIX" in folder.read_text(encoding="utf-8")
    }


def named_families(names: set[str], known: set[str]) -> set[str]:
    return {name.split(".")[2] for name in names if name.startswith("unitone.lm.")} & known


def test_what_families_share_imports_none_of_them() -> None:
    """They are found by their folders; two commands are of the decoder-only family alone."""
    known, own = {*families()}, {"export.py", "memory.py"}
    assert "decoder" in known
    folders = [ROOT / "lm", ROOT / "lm" / "jobs", ROOT / "lm" / "data"]
    shared = [path for folder in folders for path in folder.glob("*.py") if path.name not in own]
    for path in shared:
        names = imported_names(path.read_text(encoding="utf-8"))
        assert not named_families(names, known), path


def test_families_do_not_import_each_other() -> None:
    found = families()
    for family, names in found.items():
        assert named_families(names, {*found}) <= {family}


def test_the_links_are_exactly_the_five_rooms() -> None:
    links = {
        path.name: path.readlink().as_posix()
        for path in (ROOT / "unitone").iterdir()
        if path.is_symlink()
    }
    assert links == {room: f"../{room}" for room in MAY_IMPORT}
    assert all((ROOT / room).is_dir() and not (ROOT / room).is_symlink() for room in MAY_IMPORT)


def test_codecs_has_no_init_file() -> None:
    """With one, ``PYTHONPATH`` = root kills the interpreter at start-up on some switches."""
    assert not (ROOT / "codecs" / "__init__.py").exists()


def test_only_the_command_line_names_the_recipes() -> None:
    """A module path in a string is an import in disguise."""
    naming = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if path.relative_to(ROOT).parts[0] != "recipes"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("unitone.recipes.")
    }
    assert naming == {"unitone/cli.py"}
