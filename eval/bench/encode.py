"""How fast ``python -m tokenizers.encode`` is with MFCC, as a multiple of real time.

``python -m unitone.eval.bench.encode [--manifest M]``: builds a tokenizer on the corpus once, then
encodes it ``--repeats`` times in a process of its own, start-up included, and prints the median
against the goal of 500. Without a manifest the corpus is noise with speech's envelope.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitone import seeding
from unitone.config import command_line
from unitone.corpus.audio import SAMPLE_RATE

GOAL = 500.0


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    manifest: Path | None = None
    """Corpus to encode; default: synthetic, as many hours as ``hours``."""
    hours: float = 1.0
    k: int = 200
    threads: int = 2
    """Threads of the encoder, and as many that decode audio."""
    repeats: int = 3


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 0 whether or not the goal is reached."""
    config = command_line(BenchConfig, argv, __doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = config.manifest or _corpus(folder / "corpus", config.hours)
        threads = ("--threads", str(config.threads), "--workers", str(config.threads))
        tokenizer = folder / "tokenizer"
        built = _timed(
            "build",
            *("--manifest", str(manifest), "--ssl", "mfcc", "--k", str(config.k)),
            *("--out", str(tokenizer), *threads),
        )
        runs = []
        for repeat in range(config.repeats):
            out = folder / f"tokens-{repeat}"
            arguments = ("--tokenizer", str(tokenizer), "--manifest", str(manifest))
            runs.append(_timed("encode", *arguments, "--out", str(out), *threads))
        from unitone.tokenizers.shards import TokenShards

        shards = TokenShards(folder / "tokens-0")
        events = [
            json.loads(line)
            for line in (folder / "tokens-0" / "log.jsonl").read_text("utf-8").splitlines()
        ]
    seconds = shards.index["num_samples"] / SAMPLE_RATE
    median, inside = statistics.median(runs), events[-1]["wall_seconds"]
    print(f"mfcc, k = {config.k}, {seconds / 3600:.2f} h, {config.threads} threads")
    print(f"  build, whole process    {built:7.2f} s  {seconds / built:7.0f} x real time")
    print(f"  encode, whole process   {median:7.2f} s  {seconds / median:7.0f} x real time")
    print(f"  encode, without start   {inside:7.2f} s  {seconds / inside:7.0f} x real time")
    print(f"  ratio to the goal of {GOAL:g} x: {seconds / median / GOAL:.2f}")
    return 0


def _timed(stage: str, *arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", f"unitone.tokenizers.{stage}", *arguments],
        check=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    return time.perf_counter() - started


def _corpus(folder: Path, hours: float) -> Path:
    """Write 6-second recordings of modulated noise; return the manifest."""
    import soundfile

    folder.mkdir()
    generator = seeding.stream(0, "bench")
    lines = []
    for index in range(max(1, round(hours * 600))):
        envelope = np.interp(
            np.arange(6 * SAMPLE_RATE),
            np.arange(0, 6 * SAMPLE_RATE + 1, 1600),
            generator.uniform(0, 0.3, 61),
        )
        samples = envelope * generator.standard_normal(6 * SAMPLE_RATE)
        soundfile.write(folder / f"{index}.flac", samples.clip(-1, 1), SAMPLE_RATE)
        lines.append(json.dumps({"id": str(index), "audio": f"{index}.flac", "duration": 6.0}))
    (folder / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
    return folder / "manifest.jsonl"


if __name__ == "__main__":
    raise SystemExit(main())
