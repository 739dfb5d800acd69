"""Units in the files that neighbors read.

``fairseq``: ``SPLIT.tsv``, ``SPLIT.km`` (a unit a frame, an utterance a line) and ``dict.km.txt``,
as HuBERT pre-training wants them. ``espnet``: ``pseudo_labels_kmK.txt`` (id, a unit a frame) and
``text.ts.NAME`` / ``text.rm.NAME``, the same as CJK characters U+4E00 + unit, all frames or without
repetitions, as the asr2 recipes have them. ``jsonl``: one object a line.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import numpy as np

from unitone import files
from unitone.corpus.audio import SLACK
from unitone.corpus.corpus import Corpus
from unitone.corpus.utterance import Utterance
from unitone.errors import ConfigError
from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.options import Format
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards

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
    audio = _whole_files(corpus)
    splits = {row_split: _safe(row_split) for row_split in shards.distinct("split")}
    if len(set(splits.values())) < len(splits):
        raise ConfigError(
            f"--format fairseq names files by split; of {', '.join(sorted(splits))}, two share one"
        )
    with _text_files() as opened:
        for row in shards.rows():
            split = _safe(row["split"] or "all")
            manifest, begun = opened(out / f"{split}.tsv"), opened(out / f"{split}.km")
            if manifest.tell() == 0:
                manifest.write("/\n")
            manifest.write(f"{audio[row['id']].relative_to('/')}\t{row['num_samples']}\n")
            begun.write(_joined(frames_of(row)) + "\n")
        counts = opened(out / "dict.km.txt")
        counts.writelines(f"{unit} 1\n" for unit in range(shards.passport.kmeans.k))


def _safe(split: str) -> str:
    return split.replace("/", "_")


def _whole_files(corpus: Corpus) -> dict[str, Path]:
    """Return the recording of each utterance; a TSV holds whole files, all channels, each once."""
    found: dict[str, Path] = {}
    first: dict[Path, str] = {}
    for u in corpus.utterances:
        if u.audio is None:
            raise ConfigError(f"--format fairseq needs audio files; {u.id!r} has none of its own")
        if _is_part(u):
            raise ConfigError(
                f"--format fairseq can't hold parts of recordings, as {u.id!r} is one"
            )
        if u.channel is not None:
            raise ConfigError(
                f"--format fairseq can't hold one channel of a recording, as {u.id!r} is"
            )
        path = u.audio.resolve()
        if any(c in str(path) for c in "\t\r\n"):
            raise ConfigError(f"--format fairseq can't hold the path {str(path)!r}")
        if path in first:
            raise ConfigError(
                f"--format fairseq can't hold one recording twice, as {first[path]!r} and "
                f"{u.id!r} are"
            )
        found[u.id], first[path] = path, u.id
    return found


def _is_part(utterance: Utterance) -> bool:
    """Tell whether an utterance isn't the whole of its file; only then is its header read."""
    if utterance.start or utterance.duration is None or utterance.audio is None:
        return bool(utterance.start)
    import soundfile

    try:
        length = soundfile.info(utterance.audio).duration
    except RuntimeError:
        return False  # it has no row: it was skipped
    return bool(length - utterance.duration > SLACK)


def _espnet(shards: TokenShards, corpus: Corpus, out: Path) -> None:
    passport = shards.passport
    k = passport.kmeans.k
    if k > CJK_SIZE:
        raise ConfigError(f"--format espnet holds at most {CJK_SIZE} units, k is {k}")
    name = espnet_name(passport)
    keys = _espnet_keys(shards.ids())
    with _text_files() as opened:
        labels = opened(out / f"pseudo_labels_km{k}.txt")
        every, changes = opened(out / f"text.ts.{name}"), opened(out / f"text.rm.{name}")
        for key, number in keys:
            row = shards[number]
            units = frames_of(row)
            kept = units[np.flatnonzero(np.diff(units, prepend=-1))]
            labels.write(f"{key} {_joined(units)}\n")
            every.write(f"{key} {_characters(units)}\n")
            changes.write(f"{key} {_characters(kept)}\n")


def _espnet_keys(ids: Sequence[str]) -> list[tuple[str, int]]:
    """Return a key without spaces for each id, and its row, sorted as Kaldi's tools want them.

    A space becomes ``_``, or ``%20`` where another id is called so.

    Raises:
        ConfigError: two ids would still have one key.
    """
    plain = ["".join("_" if c.isspace() else c for c in name) for name in ids]
    times = Counter(plain)
    keys = [
        key
        if key == name or times[key] == 1
        else "".join(quote(c) if c.isspace() else c for c in name)
        for name, key in zip(ids, plain, strict=True)
    ]
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise ConfigError(f"--format espnet has no spaces in ids: {twice!r} would be there twice")
    return sorted(zip(keys, range(len(ids)), strict=True), key=lambda pair: pair[0].encode())


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
