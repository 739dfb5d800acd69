"""Both engines give the same results; the Ray one on a local cluster of two workers."""

import filecmp
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unitone.tokenizers import engines

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Square:
    """A job that opens once and squares what it is given."""

    offset: int

    def open(self) -> Callable[[list[int]], Iterator[int]]:
        def work(block: list[int]) -> Iterator[int]:
            for number in block:
                yield number * number + self.offset

        return work


def test_local_results_come_in_order() -> None:
    blocks = [[1, 2], [], [3]]

    assert list(engines.run(Square(1), blocks, engine="local", workers=1)) == [2, 5, 10]


def command(module: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs unitone[ray]")
def test_ray_builds_and_encodes_to_the_same_bytes(
    tmp_path: Path, speech: Callable[..., np.ndarray]
) -> None:
    lines = []
    for index in range(150):  # three blocks
        soundfile.write(tmp_path / f"{index}.wav", speech(0.3, index), 16_000)
        record = {"id": str(index), "audio": f"{index}.wav", "duration": 0.3}
        lines.append(json.dumps(record))
    lines[7] = "broken"
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(lines))
    options = ("--manifest", manifest, "--ssl", "mfcc", "--k", 8, "--sample-frames", 500)
    ray = ("--engine", "ray", "--workers", 2, "--threads", 1)

    command("tokenizers.build", *options, "--out", tmp_path / "local")
    command("tokenizers.build", *options, "--out", tmp_path / "ray", *ray)
    encode = ("--tokenizer", tmp_path / "local", "--manifest", manifest, "--shard-size", 100)
    command("tokenizers.encode", *encode, "--out", tmp_path / "tokens-local")
    command("tokenizers.encode", *encode, "--out", tmp_path / "tokens-ray", *ray)

    for folder, names in (
        ("local", ["passport.json", "kmeans.safetensors", "units.model", "skipped.jsonl"]),
        ("tokens-local", ["part-00000.parquet", "part-00001.parquet", "tokens.json"]),
    ):
        for name in names:
            other = tmp_path / folder.replace("local", "ray") / name
            assert filecmp.cmp(tmp_path / folder / name, other, shallow=False), name
