"""The wheel, in an environment and a folder that know nothing of the checkout.

The clean environment has a site-packages of its own with the wheel alone; the dependencies are seen
through one line in a .pth file, so that nothing is downloaded twice. The .pth files of the parent,
an editable install of this checkout among them, are not followed.
"""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import unitone

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tokenizers", "lm", "codecs", "eval", "recipes")


def run(command: Sequence[str | Path], *, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build in a copy, so that the checkout stays clean; links are copied as links."""
    tree, out = tmp_path_factory.mktemp("build") / "tree", tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "exp", "site", "build", "dist", "*.egg-info", "__py*")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=unwanted)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", out, "."], cwd=tree)
    (built,) = out.glob("unitone-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the clean environment."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    options = ["install", "--no-deps", "--no-index", "--quiet"]
    run([sys.executable, "-m", "pip", "--python", interpreter, *options, wheel], cwd=folder)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter


def test_the_wheel_holds_one_package_and_no_link(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    tops = {entry.filename.split("/")[0] for entry in entries}
    assert tops == {"unitone", f"unitone-{unitone.__version__}.dist-info"}
    assert not [e.filename for e in entries if stat.S_ISLNK(e.external_attr >> 16)]


def test_the_wheel_holds_every_file_of_the_rooms(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    wanted = {
        f"unitone/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file()
        and path.suffix != ".md"
        and not path.name.startswith(".")
        and "__pycache__" not in path.parts
    }
    assert wanted <= packed
    assert "unitone/py.typed" in packed
    licenses = {Path(name).name for name in packed if ".dist-info/licenses/" in name}
    assert licenses == {"LICENSE", "NOTICE"}


def test_the_commands_answer(python: Path, tmp_path: Path) -> None:
    door = python.parent / "unitone"
    assert run([door, "--version"], cwd=tmp_path) == f"unitone {unitone.__version__}\n"
    assert "usage: unitone COMMAND" in run([door, "--help"], cwd=tmp_path)
    assert "--manifest" in run([python, "-m", "unitone.tokenizers.build", "--help"], cwd=tmp_path)
    report = run([door, "doctor"], cwd=tmp_path)
    assert "all core modules import" in report
    assert str(python.parents[1]) in report


def test_every_module_imports(python: Path, tmp_path: Path) -> None:
    code = """
import importlib, os, pkgutil, unitone
folder = os.path.join(unitone.__path__[0], "codecs")  # without __init__.py, so not walked into
walked = list(pkgutil.walk_packages(unitone.__path__, "unitone."))
walked += list(pkgutil.walk_packages([folder], "unitone.codecs."))
for module in walked:
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(unitone.__file__)
"""
    printed = run([python, "-c", code], cwd=tmp_path).splitlines()
    assert len(printed) == 1, "a module prints when it is imported"
    assert printed[0].startswith(str(python.parents[1]))


def test_the_main_job_runs(python: Path, tiny_corpus: Path) -> None:
    door, manifest = python.parent / "unitone", tiny_corpus / "manifest.jsonl"
    work, made = tiny_corpus.parent, tiny_corpus.parent / "tokenizer"
    corpus: list[str | Path] = ["--manifest", manifest]
    run([door, "build", *corpus, "--ssl", "mfcc", "--k", "8", "--out", made], cwd=work)
    run([door, "encode", *corpus, "--tokenizer", made, "--out", work / "tokens"], cwd=work)
    assert list((work / "tokens").glob("*.parquet"))
