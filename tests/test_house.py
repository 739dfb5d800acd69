"""Rules of the house that no linter knows: sizes, names, randomness, paths."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("unitone", "tokenizers", "lm", "codecs", "eval", "recipes", "tests")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_MODULES = 15
ATTICS = {"utils", "util", "misc", "common", "helpers", "tools"}
DRAWS = {"bernoulli", "multinomial", "normal", "poisson", "rand", "randint", "randn", "randperm"}
GLOBAL_STATE = {"manual_seed", "manual_seed_all", "seed", "set_rng_state"}
NUMPY_TYPES = {"BitGenerator", "Generator", "Philox"}
MACHINE_PATH = re.compile(r"(?<![\w.~/])/(?:home|root|Users|work|tmp|mnt)/\w")
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".json", ".cfg", ""}


@cache
def files() -> tuple[Path, ...]:
    """Return what is, or would be, under version control; links are not followed."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        names = [
            path.relative_to(ROOT).as_posix()
            for path in ROOT.rglob("*")
            if ".venv" not in str(path)
        ]
    else:
        command = [git, "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    found = [ROOT / name for name in sorted(set(names))]
    return tuple(path for path in found if path.is_file() and not path.is_symlink())


def python_files(*, tests: bool = True) -> list[Path]:
    rooms = set(CODE) if tests else set(CODE) - {"tests"}
    return [
        path
        for path in files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in rooms
    ]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_have_at_most_500_lines() -> None:
    lengths = {name_of(path): len(path.read_bytes().splitlines()) for path in python_files()}
    assert not {name: n for name, n in lengths.items() if n > MAX_FILE_LINES}


def test_functions_have_at_most_60_lines() -> None:
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{name_of(path)}:{node.lineno} {node.name}"] = lines
    assert not long


def folders() -> list[Path]:
    """Return the folders of source that hold modules."""
    return sorted({path.parent for path in python_files(tests=False)} - {ROOT})


def test_folders_have_at_most_15_modules() -> None:
    """``__init__`` and ``__main__`` are not counted."""
    counts = {
        name_of(folder): len([path for path in folder.glob("*.py") if path.stem[:2] != "__"])
        for folder in folders()
    }
    assert not {name: count for name, count in counts.items() if count > MAX_MODULES}


def test_every_folder_says_what_lives_in_it() -> None:
    assert not [name_of(folder) for folder in folders() if not (folder / "README.md").is_file()]
    long = {name_of(one / "README.md"): one / "README.md" for one in folders()}
    assert not [name for name, path in long.items() if len(path.read_text().splitlines()) > 45]


def test_no_attics() -> None:
    assert not [name_of(path) for path in python_files() if path.stem.strip("_") in ATTICS]


def test_tests_have_no_init_files() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` for the attribute chain ``node``; empty where it is anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def global_draws(source: bytes | str) -> Iterator[str]:
    """Yield what in ``source`` uses a process-wide random state, as ``line: what``."""
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            yield f"{node.lineno}: import random"
        elif isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random"):
            yield f"{node.lineno}: from {node.module} import"
        elif isinstance(node, ast.Attribute):
            name = dotted(node).replace("numpy.", "np.")
            head, _, last = name.rpartition(".")
            by_torch = head.startswith("torch") and last in GLOBAL_STATE
            a_type = last in NUMPY_TYPES and id(node) not in called  # may be named, not made
            if by_torch or (head == "np.random" and not a_type):
                yield f"{node.lineno}: {name}"
        elif isinstance(node, ast.Call):
            head, _, last = dotted(node.func).rpartition(".")
            seeded = any(keyword.arg == "generator" for keyword in node.keywords)
            if head == "torch" and last in DRAWS and not seeded:
                yield f"{node.lineno}: torch.{last} without generator"


def test_no_global_randomness() -> None:
    found = [
        f"{name_of(path)}:{use}"
        for path in python_files(tests=False)
        if name_of(path) != "unitone/seeding.py"
        for use in global_draws(path.read_bytes())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from numpy.random import default_rng",
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.cuda.manual_seed_all(0)",
        "import numpy as np\nnp.random.rand(3)",
        "import numpy as np\nnp.random.default_rng()",
        "import numpy as np\nnp.random.Generator(np.random.Philox(3))",
        "import torch\ntorch.randn(3)",
    ],
)
def test_global_randomness_is_caught(source: str) -> None:
    assert list(global_draws(source))


def test_a_generator_is_not_global_randomness() -> None:
    source = """
import numpy as np
import torch
def f(rng: np.random.Generator, generator: torch.Generator):
    generator.manual_seed(0)
    return torch.randn(3, generator=generator), rng.random()
"""
    assert not list(global_draws(source))


def test_no_path_of_one_machine() -> None:
    found = []
    for path in files():
        if path.suffix not in TEXT or path.stat().st_size > 500_000:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_no_large_files() -> None:
    assert not [name_of(path) for path in files() if path.stat().st_size > 500_000]
