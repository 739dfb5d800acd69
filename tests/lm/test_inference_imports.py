"""What inference may not import: it would take longer than the answer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BANNED = (
    *("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "torch.distributed.tensor"),
    *("faiss", "lhotse", "matplotlib", "pandas", "pyarrow", "pyarrow.dataset"),
    *("ray", "sacrebleu", "scipy", "sklearn", "sympy", "transformers"),
)
PROBE = f"""
import json, sys
from unitone import cli
status = cli.main(sys.argv[1:])
found = sorted(name for name in {BANNED} if name in sys.modules)
sys.stderr.write("\\n" + json.dumps([status, found]))
"""


def outcome(*words: str | Path) -> tuple[int, list[str]]:
    """Run a command in a process of its own; return its status, and what it has imported."""
    command = [sys.executable, "-c", PROBE, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, found = json.loads(done.stderr.splitlines()[-1])
    return status, found


@pytest.mark.parametrize("command", ["transcribe", "speak", "translate", "translate-text"])
def test_the_short_commands(world: Any, tmp_path: Path, command: str) -> None:
    recording = world.manifest.parent / "0.wav"
    words = {
        "transcribe": ("transcribe", recording),
        "speak": ("speak", "two dogs", "--language", "en", "--out", tmp_path / "a.wav"),
        "translate": ("translate", recording, "--to", "de"),
        "translate-text": ("translate", "two dogs", "--to", "de"),
    }
    named = ("--model", world.model, "--device", "cpu")
    assert outcome(*words[command], *named) == (0, [])


def test_decoding_recordings(world: Any, tmp_path: Path) -> None:
    words = ("decode", "--model", world.model, "--device", "cpu", "--task", "asr")
    plain = ("--manifest", world.manifest, "--out", tmp_path / "hyp.jsonl")
    assert outcome(*words, *plain) == (0, [])


def test_encoding_needs_no_training_and_no_scores(world: Any, tmp_path: Path) -> None:
    words = ("encode", "--tokenizer", world.tokenizer, "--manifest", world.manifest)
    assert outcome(*words, "--device", "cpu", "--out", tmp_path / "tokens") == (0, ["pyarrow"])
