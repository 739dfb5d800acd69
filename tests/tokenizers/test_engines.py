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

from unitone.tokenizers import build, encode, engines

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


RAY = """
import json, sys
from unitone.tokenizers import build, encode

to_build, to_encode = json.loads(sys.argv[1])
sys.exit(build.main(to_build) or encode.main(to_encode))
"""
"""Both commands on one cluster, in a process that ends it."""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs unitone[ray]")
@pytest.mark.parametrize("hours", ["0", "0.009"])
def test_ray_builds_and_encodes_to_the_same_bytes(
    tmp_path: Path, speech: Callable[..., np.ndarray], hours: str
) -> None:
    lines = []
    for index in range(150):  # three blocks; of those drawn two, and a second round
        if index % 9:
            soundfile.write(tmp_path / f"{index}.wav", speech(0.3, index), 16_000)
        record = {"id": str(index), "audio": f"{index}.wav", "duration": 0.3}
        lines.append(json.dumps(record))
    lines[7] = "broken"
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(lines))
    options = (*("--manifest", manifest, "--ssl", "mfcc"), *("--k", 8, "--sample-frames", 500))
    some = ("--sample-hours", hours, "--statistics-hours", 0.004)
    encoding = ("--manifest", manifest, "--tokenizer", tmp_path / "local", "--shard-size", 100)
    ray = ("--engine", "ray", "--workers", 2, "--threads", 1)

    assert build.main([*map(str, (*options, *some, "--out", tmp_path / "local"))]) == 0
    assert encode.main([*map(str, (*encoding, "--out", tmp_path / "tokens-local"))]) == 0
    both = [
        [*map(str, (*options, *some, "--out", tmp_path / "ray", *ray))],
        [*map(str, (*encoding, "--out", tmp_path / "tokens-ray", *ray))],
    ]
    command = [sys.executable, "-c", RAY, json.dumps(both)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]

    for folder, names in (
        ("local", ["passport.json", "kmeans.safetensors", "units.model", "skipped.jsonl"]),
        ("tokens-local", ["part-00000.parquet", "part-00001.parquet", "tokens.json"]),
    ):
        for name in names:
            other = tmp_path / folder.replace("local", "ray") / name
            assert filecmp.cmp(tmp_path / folder / name, other, shallow=False), name
