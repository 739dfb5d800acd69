"""A bare checkout: our folder ``tokenizers`` and Hugging Face's package of that name coexist."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="needs transformers: pip install 'unitone[hf]'"
)


def run(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_commands_run_by_their_folder_name() -> None:
    """``python -m tokenizers.build``, although the installed package of that name is another."""
    code = """
import runpy, sys
for name in ("build", "encode", "features"):
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(f"tokenizers.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        assert not stop.code
"""
    assert run("-c", code).count("--manifest PATH") == 3


@needs_transformers
@pytest.mark.parametrize("ours_first", [True, False])
def test_hugging_face_tokenizers_work_beside_ours(ours_first: bool) -> None:
    imports = ["import unitone.tokenizers.kmeans.units", "from transformers import AutoTokenizer"]
    code = f"""
{chr(10).join(imports if ours_first else reversed(imports))}
from tokenizers import Tokenizer, models
assert Tokenizer(models.BPE()).get_vocab_size() == 0
import tokenizers, unitone.tokenizers
assert tokenizers is not unitone.tokenizers
print(AutoTokenizer.__module__)
"""
    assert run("-c", code).startswith("transformers.")


@needs_transformers
def test_a_spawned_worker_gives_objects_of_the_same_class() -> None:
    code = """
import multiprocessing
from unitone.errors import CorpusError
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        hugging_face = pool.apply(eval, ("__import__('tokenizers').Tokenizer.__name__",))
        ours = pool.apply(eval, ("__import__('unitone.errors').errors.CorpusError('ours')",))
    assert type(ours) is CorpusError
    print(hugging_face, ours)
"""
    assert run("-c", code) == "Tokenizer ours\n"


@pytest.mark.parametrize("place", [1, 0])
def test_of_two_checkouts_the_first_is_used(tmp_path: Path, place: int) -> None:
    for part in ("unitone", "tokenizers"):
        (tmp_path / part).mkdir()
        for path in (ROOT / part).glob("*.py"):
            shutil.copy(path, tmp_path / part)
    code = """
import json, sys
sys.path.insert(int(sys.argv[2]), sys.argv[1])
import tokenizers
print(json.dumps(list(tokenizers.__path__)))
"""
    first, second = (ROOT, tmp_path) if place else (tmp_path, ROOT)
    *installed, ours = json.loads(run("-c", code, str(tmp_path), str(place)))
    assert ours == str(first / "tokenizers")
    assert str(second / "tokenizers") not in installed
    assert len(installed) == (find_spec("transformers") is not None)


def test_the_standard_library_keeps_its_codecs() -> None:
    code = "import codecs; print(codecs.lookup('utf-8').name, hasattr(codecs, 'register'))"
    assert run("-X", "frozen_modules=off", "-c", code) == "utf-8 True\n"
