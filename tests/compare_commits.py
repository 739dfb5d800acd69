"""Do two commits compute the same? ``python tests/compare_commits.py BEFORE_DIR AFTER_DIR``.

Each is a checkout with ``.venv/bin/python``. Both run the same commands on the same data, each in
processes of their own, on one thread: a corpus, a tokenizer, shards, a language model, a unit
decoder, a judge, hypotheses, speech, scores. Then the later commit uses what the earlier one made.
Everything is compared to the bit, but for clocks and paths; what differs is named, and the exit
status is 1. It takes minutes on two cores. ``--work DIR`` keeps the files.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

RENAMED = {
    "--data": "--tokens",
    "--validation-split": "--valid-split",
    "--switch-penalty": "--duration-penalty",
    "--pieces": "--unit-subwords",
    "--text-pieces": "--text-subwords",
    "--round-examples": "--window-examples",
}
"""Options that a later commit may call otherwise."""
CLOCKS = re.compile(r"(^|_)(seconds|time|per_second|version|commit|command|argv|made_by)$")
"""Keys of JSON files that tell when, where and by which command, not what."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
ABSENT = "not there"
OTHER = "../before"
"""Where the later commit finds what the earlier one made."""

Row = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Side:
    """A checkout and the folder that its files go to."""

    root: Path
    folder: Path

    @property
    def python(self) -> str:
        return str(self.root / ".venv" / "bin" / "python")

    def run(self, module: str, *options: str, inside: Path | None = None) -> None:
        """Run ``python -m module``; where the options were renamed, by their new names."""
        command = [self.python, "-m", module, *self.translated(module, options)]
        done = subprocess.run(
            command,
            cwd=inside or self.folder,
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(
                f"{self.root}: {' '.join(command)}: {done.returncode}\n{done.stderr[-3000:]}"
            )

    def translated(self, module: str, options: tuple[str, ...]) -> Iterator[str]:
        """Yield the options as this commit calls them."""
        for option in options:
            new = RENAMED.get(option)
            yield new if new and self.has(module, new) else option

    def has(self, module: str, option: str) -> bool:
        """Say whether a command has this option."""
        listed = help_of(self, module)
        return bool(re.search(rf"^\W*{option}(?![\w-])", listed, re.MULTILINE))


@cache
def help_of(side: Side, module: str) -> str:
    """Return the help of a command."""
    command = [side.python, "-m", module, "--help"]  # inside: here could be another checkout
    done = subprocess.run(command, cwd=side.folder, capture_output=True, text=True, check=True)
    return done.stdout


# What is run.


def make_data(side: Side) -> None:
    run = side.run
    run("unitone.recipes.espeak", "--out", "corpus", "--utterances", "200", "--workers", "1")
    many = ("--out", "judge-corpus", "--utterances", "60", "--workers", "1")
    run("unitone.recipes.espeak", "--voices", "judge", *many)
    run(
        *("unitone.tokenizers.build", "--manifest", "corpus/manifest.jsonl", "--split", "train"),
        *("--ssl", "mfcc", "--k", "50", "--switch-penalty", "50", "--pieces", "56"),
        *("--text", "sentencepiece", "--text-pieces", "320", "--out", "tokenizer"),
        *("--threads", "1"),
    )
    encode(side, "tokenizer", "corpus/manifest.jsonl")


def encode(side: Side, tokenizer: str, manifest: str) -> None:
    options = ("--tokenizer", tokenizer, "--manifest", manifest, "--out", "tokens")
    side.run("unitone.tokenizers.encode", *options, "--threads", "1", "--shard-size", "64")


def train_lm(side: Side, tokens: str, *more: str) -> None:
    side.run(
        *("unitone.lm.train", "--data", tokens, "--out", "lm", "--config", "lm-tiny"),
        *("--steps", "50", "--max-tokens", "1024", "--round-examples", "256", "--log-every", "1"),
        *("--valid-utterances", "2", "--precision", "fp32", "--device", "cpu", "--threads", "1"),
        *more,
    )


def train_speech(side: Side, *, heads: Mapping[str, tuple[str, ...]]) -> None:
    for name, options in heads.items():
        side.run(
            *("unitone.codecs.train", "--tokens", "tokens", "--manifest", "corpus/manifest.jsonl"),
            *("--split", "train", "--validation-split", "dev", "--tokenizer", "tokenizer"),
            *("--dim", "32", "--num-blocks", "2", "--batch-crops", "4", "--log-every", "1"),
            *("--precision", "fp32", "--device", "cpu", "--threads", "1", "--out", name, *options),
        )
    side.run(
        *("unitone.eval.judge_train", "--manifest", "judge-corpus/manifest.jsonl"),
        *("--out", "judge", "--steps", "20", "--dim", "32", "--blocks", "2", "--log-every", "1"),
        *("--batch-frames", "1000", "--precision", "fp32", "--device", "cpu", "--threads", "1"),
    )


HEADS = {
    "decoder": ("--head", "mel", "--steps", "20"),
    "decoder-istft": ("--head", "istft", "--steps", "4", "--discriminator-width", "0.05"),
}
SEARCHES = {
    "asr": ("--beam", "1"),
    "mt": ("--beam", "4", "--to", "de"),
    "lid": (),
    "tts": ("--temperature", "0.8", "--candidates", "2", "--audio", "audio"),
    "continue": ("--temperature", "0.7", "--top-p", "0.9"),
}


def decode(side: Side, model: str, tokens: str) -> None:
    for task, options in SEARCHES.items():
        capped = () if task == "lid" else ("--max-tokens", "40")
        side.run(
            *("unitone.lm.decode", "--model", model, "--task", task, "--tokens", tokens),
            *("--split", "test", "--limit", "8", "--device", "cpu", *capped, *options),
            *("--out", f"hyp-{task}.jsonl"),
        )


def synthesize(side: Side, decoder: str, tokens: str) -> None:
    options = ("--tokens", tokens, "--split", "test", "--limit", "6", "--out", "resynthesis")
    side.run("unitone.codecs.synthesize", "--model", decoder, *options, "--device", "cpu")


def score(side: Side, judge: str, manifest: str) -> None:
    common = ("--ref", manifest, "--split", "test", "--limit", "8")
    few = ("--resamples", "200")
    for module, task, more in (
        ("wer", "asr", ("--by", "language", *few)),
        ("bleu", "mt", few),
        ("classify", "lid", ("--field", "language")),
        ("judge_score", "tts", ("--judge", judge)),
    ):
        hypotheses = ("--hyp", f"hyp-{task}.jsonl", "--out", f"scores-{task}")
        side.run(f"unitone.eval.{module}", *common, *hypotheses, *more)


def make_all(side: Side) -> None:
    """Run everything of one commit."""
    side.folder.mkdir(parents=True, exist_ok=True)
    code = "import unitone; print(unitone.__file__)"
    found = subprocess.check_output([side.python, "-c", code], cwd=side.folder, text=True).strip()
    if not Path(found).is_relative_to(side.root):
        raise SystemExit(f"{side.root}/.venv imports {found}: `make env` there installs its own")
    if (side.root / "tests" / "golden" / "make.py").is_file():
        out = str(side.folder.resolve() / "golden")
        side.run("tests.golden.make", "--out", out, inside=side.root)
    make_data(side)
    train_speech(side, heads=HEADS)
    train_lm(side, "tokens", "--decoder", "decoder")
    decode(side, "lm/last", "tokens")
    synthesize(side, "decoder", "tokens")
    score(side, "judge", "corpus/manifest.jsonl")


def make_crossed(side: Side) -> None:
    """Run everything of one commit with the artifacts of another."""
    side.folder.mkdir()
    manifest = f"{OTHER}/corpus/manifest.jsonl"
    encode(side, f"{OTHER}/tokenizer", manifest)
    train_lm(side, f"{OTHER}/tokens", "--decoder", f"{OTHER}/decoder")
    decode(side, f"{OTHER}/lm/last", f"{OTHER}/tokens")
    synthesize(side, f"{OTHER}/decoder", f"{OTHER}/tokens")
    score(side, f"{OTHER}/judge", manifest)


# What is compared.


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def whole(path: Path) -> str:
    """Return the hash of a file, or of the names and bytes of all files in a folder."""
    if path.is_file():
        return digest(path.read_bytes())
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        return ABSENT
    parts = [f"{file.relative_to(path)} {digest(file.read_bytes())}" for file in files]
    return f"{digest(chr(10).join(parts).encode())} ({len(files)} files)"


def timeless(value: Any) -> Any:
    """Return what JSON holds without its clocks."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if not CLOCKS.search(key)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def record(path: Path) -> str:
    """Return the hash of a JSON or JSON lines file without its clocks and `OTHER`."""
    if not path.is_file():
        return ABSENT
    text = path.read_text(encoding="utf-8").replace(f"{OTHER}/", "")
    values = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else None
    return digest(json.dumps(timeless(values or json.loads(text))).encode())


def model_config(path: Path) -> str:
    """Return the hash of a model's config.json, under the names that format 2 has."""
    if not path.is_file():
        return ABSENT
    values = json.loads(path.read_text(encoding="utf-8"))
    ours = values["unitone"]
    values["family"], ours["format"] = values.get("family", "decoder"), 2
    later = ("vocabulary", "learnt")  # an earlier commit has none
    ours = values["unitone"] = {
        name: value for name, value in ours.items() if value is not None and name not in later
    }
    renamed = {"check": "rerank", "sample_tokens": "prompt_tokens"}
    ours["tasks"] = [
        {renamed.get(name, name): value for name, value in task.items()} for task in ours["tasks"]
    ]
    return digest(json.dumps(values, sort_keys=True).encode())


def curve(path: Path) -> str:
    """Return the hash of a run's metrics, and its last loss."""
    if not path.is_file():
        return ABSENT
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    losses = [value for line in lines for key, value in line.items() if key.endswith("loss")]
    return f"{record(path)} (to {losses[-1]:.4f})"


def parquet(python: str, folder: Path) -> str:
    """Return the hash of what all shards of a folder hold."""
    code = (
        "import sys, json, hashlib, pyarrow.parquet as pq, pathlib as p;"
        "rows = [r for f in sorted(p.Path(sys.argv[1]).glob('*.parquet'))"
        " for r in pq.read_table(f).to_pylist()];"
        "print(hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:12], len(rows))"
    )
    found = subprocess.run(
        [python, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    value, count = found.stdout.split()
    return f"{value} ({count} rows)"


Measure = Callable[[Path], str]

COMPARED: tuple[tuple[str, str, Measure], ...] = (
    ("corpus manifest", "corpus/manifest.jsonl", whole),
    ("corpus audio", "corpus/audio", whole),
    ("tokenizer passport", "tokenizer/passport.json", whole),
    ("tokenizer centroids", "tokenizer/kmeans.safetensors", whole),
    ("tokenizer unit subwords", "tokenizer/units.model", whole),
    ("tokenizer text subwords", "tokenizer/text.model", whole),
    ("tokenizer build record", "tokenizer/build.json", record),
    ("tokenizer report", "tokenizer/report.json", record),
    ("shards, index", "tokens/tokens.json", record),
    ("unit decoder curve", "decoder/metrics.jsonl", curve),
    ("unit decoder weights", "decoder/last/model.safetensors", whole),
    ("unit decoder, istft, curve", "decoder-istft/metrics.jsonl", curve),
    ("unit decoder, istft, weights", "decoder-istft/last/model.safetensors", whole),
    ("judge curve", "judge/metrics.jsonl", curve),
    ("judge weights", "judge/last/model.safetensors", whole),
    ("token ids of the corpus", "lm/store", whole),
    ("lm loss, 50 steps", "lm/metrics.jsonl", curve),
    ("lm weights", "lm/last/model.safetensors", whole),
    ("lm vocabulary", "lm/last/vocabulary.json", whole),
    ("lm config", "lm/last/config.json", model_config),
    ("hypotheses, asr, greedy", "hyp-asr.jsonl", whole),
    ("hypotheses, mt, beam 4", "hyp-mt.jsonl", whole),
    ("hypotheses, lid", "hyp-lid.jsonl", whole),
    ("hypotheses, tts, sampled", "hyp-tts.jsonl", whole),
    ("hypotheses, continue, sampled", "hyp-continue.jsonl", whole),
    *((f"decoding settings, {task}", f"hyp-{task}.decoding.json", record) for task in SEARCHES),
    ("speech of the lm, wav", "audio", whole),
    ("resynthesis, wav", "resynthesis", whole),
    ("wer.json", "scores-asr/wer.json", record),
    ("bleu.json", "scores-mt/bleu.json", record),
    ("classify.json", "scores-lid/classify.json", record),
    ("judge.json", "scores-tts/judge.json", record),
)


def rows_of(before: Side, after: Side) -> Iterator[Row]:
    """Yield what is compared, and both values."""
    for what, path, measure in COMPARED:
        one, other = measure(before.folder / path), measure(after.folder / path)
        if one != ABSENT or other != ABSENT:
            yield what, one, other
    names = {file.name for side in (before, after) for file in side.folder.glob("tokens/*.parquet")}
    for name in sorted(names):
        shards = [side.folder / "tokens" / name for side in (before, after)]
        yield f"shards, {name}, bytes", whole(shards[0]), whole(shards[1])
    one, other = (parquet(side.python, side.folder / "tokens") for side in (before, after))
    yield "shards, content", one, other


def golden(before: Side, after: Side) -> Iterator[Row]:
    """Yield golden outputs; of a commit that has none, those stored with the later one."""
    stored = before.folder / "golden"
    if not stored.is_dir():
        stored = after.root / "tests" / "golden"
    for path in sorted(stored.glob("*.safetensors")):
        yield f"golden {path.stem}", whole(path), whole(after.folder / "golden" / path.name)


def table(title: str, rows: list[Row]) -> int:
    """Print the rows; return how many differ."""
    width = max(len(row[0]) for row in rows)
    print(f"\n{title}\n{'what':{width}} | {'before':30} | {'after':30} | same")
    for what, one, other in rows:
        same = "yes" if one == other and one != ABSENT else "NO"
        print(f"{what:{width}} | {one:30} | {other:30} | {same}")
    return sum(one != other or one == ABSENT for _, one, other in rows)


def compare(before: Side, after: Side, crossed: Side) -> int:
    """Run both commits and print how they differ; return the exit status."""
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make_all, (before, after)))
    make_crossed(crossed)
    differing = table("Each by itself", [*golden(before, after), *rows_of(before, after)])
    used = [row for row in rows_of(before, crossed) if row[2] != ABSENT]
    differing += table("What BEFORE made, used by AFTER", used)
    verdict = f"{differing} differ" if differing else "nothing differs"
    print(f"\n{verdict}; {time.monotonic() - started:.0f} s")
    return int(differing > 0)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--work", type=Path, help="empty folder for the files; default: a new one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).resolve()
        before = Side(given.before.resolve(), work / "before")
        after = Side(given.after.resolve(), work / "after")
        return compare(before, after, Side(after.root, work / "crossed"))


if __name__ == "__main__":
    sys.exit(main())
