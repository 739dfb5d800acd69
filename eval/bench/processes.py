"""Two processes against one: the same loss curve, and what the second process brings.

``python -m unitone.eval.bench.processes``: the training command itself, on random token shards, in
one process and under ``torchrun`` with gloo, one thread a process, fp32, two micro-batches a step.
The largest difference between the curves must be that of the order of sums.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitone import seeding
from unitone.config import command_line
from unitone.errors import UnitoneError

ALLOWED = 1e-4
"""Largest relative difference of two curves that the order of sums explains."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    size: str = "lm-tiny"
    """Named size of the model."""
    steps: int = 12
    """Optimizer steps."""
    max_tokens: int = 2048
    """Positions of a micro-batch."""
    parallel: str = "ddp"
    """ddp or fsdp."""


def write_shards(out: Path, *, rows: int = 400) -> None:
    """Write shards of random units and bytes, with the passport of a tokenizer that never was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from unitone.tokenizers import passport
    from unitone.tokenizers.parts import SCHEMA
    from unitone.tokenizers.shards import ROW_GROUP
    from unitone.tokenizers.text.text import ByteText

    made = passport.Passport(
        encoder=passport.EncoderPassport(
            name="mfcc",
            weight_hash="0" * 64,
            layer=0,
            dim=39,
            normalize_waveform=False,
            precision="fp32",
        ),
        frames=passport.FramesPassport(
            frame_policy="exact", window=60.0, context=5.0, frame_rate=100.0
        ),
        kmeans=passport.KMeansPassport(k=200, centroid_hash="0" * 64),
        deduplicate=True,
        unit_pieces=None,
        text=passport.SubwordsPassport(kind="bytes", size=256, model_hash=ByteText.hash),
    )
    table = [_row(number) for number in range(rows)]
    (out / "tokenizer").mkdir(parents=True)
    path = out / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), path, row_group_size=ROW_GROUP)
    index = {
        "passport_hash": made.hash,
        "manifest_sha256": "bench",
        "num_rows": rows,
        "parts": [{"file": "part-00000.parquet", "first_row": 0}],
    }
    (out / "tokens.json").write_text(json.dumps(index), encoding="utf-8")
    made.save(out)
    made.save(out / "tokenizer")


def _row(number: int) -> dict[str, object]:
    drawn = seeding.stream(0, "bench", number)
    units = drawn.integers(200, size=int(drawn.integers(40, 120))).tolist()
    return {
        "id": str(number),
        "units": units,
        "durations": [1] * len(units),
        "text": "".join(map(chr, drawn.integers(97, 123, size=30))),
        "split": "train",
        "num_samples": 160 * len(units),
    }


def train(config: BenchConfig, folder: Path, *, processes: int) -> tuple[np.ndarray, float]:
    """Train; return the losses and the learnt tokens per second."""
    out = folder / f"run-{processes}"
    options = [
        *("--config", config.size, "--tokens", str(folder / "tokens"), "--out", str(out)),
        *("--tasks", "asr", "--steps", str(config.steps), "--optimizer", "adamw"),
        *("--max-tokens", str(config.max_tokens), "--accumulate", "2", "--log-every", "1"),
        *("--threads", "1", "--device", "cpu", "--warmup-steps", "4"),
    ]
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", f"--nproc-per-node={processes}", "--standalone", "-m"]
        options += ["--parallel", config.parallel]
    done = subprocess.run(
        [*launcher, "unitone.lm.train", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnitoneError(f"training in {processes} process(es) failed:\n{done.stderr[-2000:]}")
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if "items_per_second" in record]
    rate = float(np.median([record["items_per_second"] for record in records[2:]]))
    return np.array([record["loss"] for record in records]), rate


def main(argv: list[str] | None = None) -> int:
    """Print the comparison; return 1 if the curves differ."""
    config = command_line(BenchConfig, argv, __doc__)
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "tokens")
        one, rate = train(config, Path(folder), processes=1)
        two, rate_of_two = train(config, Path(folder), processes=2)
    difference = float(np.abs(two / one - 1).max())
    print(f"{config.size}, {config.steps} steps, {config.parallel}, gloo, one thread a process")
    print(f"one process   {rate:8.0f} learnt tokens/s, last loss {one[-1]:.6f}")
    print(f"two processes {rate_of_two:8.0f} learnt tokens/s, last loss {two[-1]:.6f}")
    print(f"ratio {rate_of_two / rate:.2f}; largest relative difference {difference:.1e}")
    return int(difference > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
