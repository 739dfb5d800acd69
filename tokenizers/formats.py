"""Units in the files that neighbors read.

``fairseq``: ``SPLIT.tsv``, ``SPLIT.km`` (a unit a frame, an utterance a line) and ``dict.km.txt``,
as HuBERT pre-training wants them. ``espnet``: ``pseudo_labels_kmK.txt`` (id, a unit a frame) and
``text.ts.NAME`` / ``text.rm.NAME``, the same as CJK characters U+4E00 + unit, all frames or without
repetitions, as the asr2 recipes have them. ``jsonl``: one object a line.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from unitone import files
from unitone.corpus.corpus import Corpus
from unitone.errors import ConfigError
from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards

Format = Literal["fairseq", "espnet", "jsonl"]
CJK = 0x4E00
CJK_SIZE = 0x9FFF - CJK + 1


def export(shards: TokenShards, corpus: Corpus, *, to: Format, out: Path) -> None:
    """Write ``shards`` in the format ``to`` into the folder ``out``.

    Raises:
        ConfigError: the format can't hold these units.
    """
    writers: dict[Format, Callable[[TokenShards, Corpus, Path], None]] = {
        "fairseq": _fairseq,
        "espnet": _espnet,
        "jsonl": _jsonl,
    }
    writers[to](shards, corpus, out)


def _jsonl(shards: TokenShards, corpus: Corpus, out: Path) -> None:
    with _text_files() as opened:
        file = opened(out / "tokens.jsonl")
        for row in shards.rows():
            translation = {item["language"]: item["text"] for item in row["translation"]}
            record = row | {"translation": translation}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _fairseq(shards: TokenShards, corpus: Corpus, out: Path) -> None:
    audio = {u.id: u.audio for u in corpus.utterances}
    lost = next((name for name, path in audio.items() if path is None), None)
    if lost is not None:
        raise ConfigError(f"--format fairseq needs audio files; {lost!r} has none of its own")
    part = next((u.id for u in corpus.utterances if u.start or u.duration is not None), None)
    if part is not None:
        raise ConfigError(f"--format fairseq can't hold parts of recordings, as {part!r} is one")
    with _text_files() as opened:
        for row in shards.rows():
            split = (row["split"] or "all").replace("/", "_")
            manifest, begun = opened(out / f"{split}.tsv"), opened(out / f"{split}.km")
            if manifest.tell() == 0:
                manifest.write("/\n")
            path = audio[row["id"]]
            assert path is not None
            manifest.write(f"{path.resolve().relative_to('/')}\t{row['num_samples']}\n")
            begun.write(_joined(frames_of(row)) + "\n")
        counts = opened(out / "dict.km.txt")
        counts.writelines(f"{unit} 1\n" for unit in range(shards.passport.kmeans.k))


def _espnet(shards: TokenShards, corpus: Corpus, out: Path) -> None:
    passport = shards.passport
    k = passport.kmeans.k
    if k > CJK_SIZE:
        raise ConfigError(f"--format espnet holds at most {CJK_SIZE} units, k is {k}")
    name = espnet_name(passport)
    with _text_files() as opened:
        labels = opened(out / f"pseudo_labels_km{k}.txt")
        every, changes = opened(out / f"text.ts.{name}"), opened(out / f"text.rm.{name}")
        for row in shards.rows():
            key = "".join("_" if c.isspace() else c for c in row["id"])
            units = frames_of(row)
            kept = units[np.flatnonzero(np.diff(units, prepend=-1))]
            labels.write(f"{key} {_joined(units)}\n")
            every.write(f"{key} {_characters(units)}\n")
            changes.write(f"{key} {_characters(kept)}\n")


def espnet_name(passport: Passport) -> str:
    """Return the suffix of ESPnet's text files, ``wavlm_large_21_km2000``."""
    encoder = passport.encoder
    return f"{encoder.name.replace('-', '_')}_{encoder.layer}_km{passport.kmeans.k}"


def frames_of(row: dict[str, Any]) -> np.ndarray:
    """Return a shard row's units, one a frame."""
    return expand(np.asarray(row["units"], np.int32), np.asarray(row["durations"], np.int32))


def _joined(units: np.ndarray) -> str:
    return " ".join(map(str, units.tolist()))


def _characters(units: np.ndarray) -> str:
    return "".join(chr(CJK + unit) for unit in units.tolist())


@contextmanager
def _text_files() -> Iterator[Callable[[Path], TextIO]]:
    """Yield an opener that returns the same file for the same path; all appear whole at the end."""
    opened: dict[Path, TextIO] = {}
    with ExitStack() as stack:

        def open_once(path: Path) -> TextIO:
            if path not in opened:
                temporary = stack.enter_context(files.replacing(path))
                opened[path] = stack.enter_context(temporary.open("w", encoding="utf-8"))
            return opened[path]

        yield open_once
