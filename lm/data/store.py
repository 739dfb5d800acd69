"""The tokens of a corpus in a form that training reads: flat arrays on disk, opened by mapping.

One pass over the shards turns text and units into tokens of the vocabulary; after it, utterance i
and the length of every example are there without reading anything else, in any process.

    FOLDER/<field>.tokens.npy    all tokens of the field, one utterance after the other
    FOLDER/<field>.offsets.npy   where each utterance begins; one more than there are utterances
    FOLDER/codes.tokens.npy      codes of a codec, ``frames × levels``; its offsets count frames
    FOLDER/<class>.npy           number of the label, -1 where there is none
    FOLDER/voices.npy            speaker embeddings, where there are any
    FOLDER/voice.npy             which of them is an utterance's
    FOLDER/store.json            what it was made from, labels; written last

A field is ``units``, ``text``, ``codes`` or ``translation.<language>``.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from unitone import files
from unitone.config import to_dict
from unitone.corpus import speaker_embeddings
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.fields import Fields
from unitone.lm.data.speaker_prompts import SpeakerPrompts
from unitone.lm.data.splits import splitter
from unitone.lm.tasks import CLASSES
from unitone.logs import Progress
from unitone.tokenizers.shards import TokenShards

FORMAT = 1
"""Raised when the arrays change their meaning."""
INDEX = "store.json"
FEATURES = "features.jsonl"
BLOCK = 1_000_000
"""Tokens that are looked at together."""
LABELS = ("language", "gender", "speaker")
CURES = {
    "prompt_units": "that takes a speaker with two utterances",
    "voice": "give the speaker embeddings with --speaker-embeddings",
    "features": "make them with `python -m tokenizers.features` and give --features",
    "codes": "make shards that have them with `python -m unitone.codecs.encode`",
}
"""What helps where a field is missing; otherwise it is a better manifest."""
BY_OPTION = ("features", "voice", "codes")
"""Fields that no manifest has."""


def build(
    folder: Path,
    *,
    shards: TokenShards,
    fields: Fields,
    split: Sequence[str] | None,
    features: Path | None = None,
    embeddings: Path | None = None,
    replace: bool = True,
    validating: bool = False,
    split_by: str | None = None,
) -> "TokenStore":
    """Write the store of the rows of ``split`` (None: all), or open it if it is there already.

    ``split_by`` makes the splits, as `unitone.lm.data.splits` says.
    ``features`` is a folder of `unitone.tokenizers.features`; its files are read where they lie.
    ``embeddings`` is a file that `unitone.corpus.speaker_embeddings` reads; its vectors are copied.
    A store of other data makes room, if ``replace`` says so. ``validating``: an utterance may be
    without a speaker embedding, and is no example then.

    Raises:
        CorpusError: no utterance is in the split.
        ConfigError: the shards are of another tokenizer than the vocabulary, have no codes where
            it has, or an utterance has no speaker embedding where there are some; or there is a
            store of other data that is to stay.
        CheckpointError: the file of speaker embeddings can't be read.
    """
    fields.vocabulary.require_passport(shards.passport.hash, of="the token shards")
    vectors = (
        None
        if embeddings is None
        else speaker_embeddings.read(embeddings, option="--speaker-embeddings")
    )
    key = [
        *_key(shards, fields, features=features, embeddings=embeddings, split=split),
        *([] if split_by is None else [f"by {split_by}"]),
    ]
    identity = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    index = folder / INDEX
    if index.is_file() and files.read_json(index)["identity"] == identity:
        return TokenStore(folder, split=split)
    if index.is_file() and not replace:
        raise ConfigError(
            f"{folder} has the tokens that this run began with; the shards, or the features or "
            "speaker embeddings beside them, are others now: give the old ones to go on, or "
            "another --out to start anew"
        )
    index.unlink(missing_ok=True)
    of = {} if features is None else _files_of(features)
    columns = _Columns(of, vectors, validating=validating)
    split_of = splitter(shards, split_by)
    with Progress("tokens", total=float(len(shards)), unit="utterance") as progress:
        for row in shards.rows():
            if split is None or split_of(row) in split:
                columns.add(fields.record(row), num_samples=row["num_samples"])
            progress.advance(1.0)
    if not columns.ids:
        raise CorpusError(f"no utterance{_of(split)} in the token shards{_splits_of(shards)}")
    columns.write(folder, identity=identity)
    return TokenStore(folder, split=split)


def _key(
    shards: TokenShards,
    fields: Fields,
    *,
    features: Path | None,
    embeddings: Path | None,
    split: Sequence[str] | None,
) -> list[Any]:
    """Return what a store is made from, as JSON values."""
    of_features = None if features is None else files.sha256(features / FEATURES)
    words = fields.vocabulary
    return [
        FORMAT,
        *(shards.index["manifest_sha256"], shards.passport.hash, words.hash, split),
        *(str(features), of_features),
        *([] if embeddings is None else [files.sha256(embeddings)]),
        *([to_dict(shards.require_codes())] if words.codes else []),
    ]


def _of(split: Sequence[str] | None) -> str:
    return "" if split is None else f" of split {', '.join(split)}"


def _splits_of(shards: TokenShards) -> str:
    """Return what is to be said where a split is empty."""
    found = ", ".join(sorted(shards.distinct("split")))
    if found:
        return f"; there are {found}: choose with --split"
    return ", which have no splits: `--split-by utterance` (or speaker) makes train, dev and test"


def _files_of(features: Path) -> dict[str, Path]:
    """Return the file of each id."""
    lines = (features / FEATURES).read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return {entry["id"]: (features / entry["file"]).resolve() for entry in entries}


class _Columns:
    def __init__(
        self,
        features: Mapping[str, Path],
        vectors: Mapping[str, Float32[np.ndarray, "E"]] | None,
        *,
        validating: bool,
    ) -> None:
        self.ids: list[str] = []
        self._vectors, self._validating = vectors, validating
        self._voices: list[str | None] = []
        self._features = features
        self._files: list[str | None] = []
        self._frames: list[int] = []
        self._width = 0
        self._num_samples = 0
        self._tokens: dict[str, list[np.ndarray]] = {}
        self._labels: dict[str, list[str | None]] = {name: [] for name in LABELS}

    def add(self, record: Mapping[str, Any], *, num_samples: int) -> None:
        fields = {name: record[name] for name in ("units", "text") if name in record}
        fields |= {f"translation.{to}": text for to, text in record["translations"].items()}
        if "codes" in record:
            fields["codes"] = record["codes"].T
        for name in fields.keys() - self._tokens.keys():
            self._tokens[name] = [fields[name][:0]] * len(self.ids)
        for name, column in self._tokens.items():
            column.append(fields.get(name, column[0][:0] if column else np.zeros(0, np.int32)))
        for name in LABELS:
            self._labels[name].append(record.get(name))
        if self._vectors is not None:
            whose = {"id": record["id"], "speaker": record.get("speaker")}
            voice = speaker_embeddings.find(self._vectors, **whose)
            if voice is None and not self._validating:
                speaker_embeddings.name_of(self._vectors, **whose, option="--speaker-embeddings")
            self._voices.append(voice)
        self.ids.append(record["id"])
        self._num_samples += num_samples
        path = self._features.get(record["id"])
        self._files.append(None if path is None else str(path))
        if path is not None:
            frames, self._width = np.load(path, mmap_mode="r").shape
            self._frames.append(frames)
        else:
            self._frames.append(0)

    def write(self, folder: Path, *, identity: str) -> None:
        for name, column in self._tokens.items():
            _write(folder / f"{name}.tokens.npy", np.concatenate(column).astype(np.int32))
            ends = np.cumsum([0, *map(len, column)], dtype=np.int64)
            _write(folder / f"{name}.offsets.npy", ends)
        labels = {}
        for name, values in self._labels.items():
            labels[name] = sorted({value for value in values if value is not None})
            numbers = {label: number for number, label in enumerate(labels[name])}
            coded = [-1 if value is None else numbers[value] for value in values]
            _write(folder / f"{name}.npy", np.array(coded, np.int32))
        used = sorted({name for name in self._voices if name is not None})
        if self._vectors is not None and used:
            which = {None: -1} | {name: number for number, name in enumerate(used)}
            _write(folder / "voices.npy", np.stack([self._vectors[name] for name in used]))
            _write(folder / "voice.npy", np.array([which[n] for n in self._voices], np.int32))
        index = {
            "identity": identity,
            "fields": sorted(self._tokens),
            "labels": labels,
            "ids": self.ids,
            "num_samples": self._num_samples,
            "features": self._files if self._width else None,
            "frames": self._frames if self._width else None,
            "width": self._width,
            "voices": bool(used),
        }
        files.write_json(folder / INDEX, index)


def _write(path: Path, array: np.ndarray) -> None:
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


class TokenStore:
    """An opened store; picklable, since only the folder travels."""

    def __init__(self, folder: Path, *, split: Sequence[str] | None = None) -> None:
        """Map the arrays of ``folder``, which are of ``split``, as messages say."""
        self._folder, self._split = folder, split
        index = files.read_json(folder / INDEX)
        self.identity: str = index["identity"]
        """Hash of the shards, the vocabulary and the splits it was made from."""
        self.ids: list[str] = index["ids"]
        self.labels: dict[str, list[str]] = index["labels"]
        self.num_samples: int = index["num_samples"]
        """Length of the speech, at 16 kHz."""
        self.width: int = index["width"]
        """Of the continuous features; 0 where there are none."""
        self._voices = None
        if index.get("voices"):
            self._voices = np.load(folder / "voices.npy", mmap_mode="r")
            self._voice = np.load(folder / "voice.npy", mmap_mode="r")
        self.voice_width: int = 0 if self._voices is None else self._voices.shape[1]
        """Of the speaker embeddings; 0 where there are none."""
        self._features: list[str | None] | None = index["features"]
        self._frames = np.array(index["frames"] or np.zeros(len(self.ids)), np.int64)
        self._tokens, self._offsets = {}, {}
        for name in index["fields"]:
            self._tokens[name] = np.load(folder / f"{name}.tokens.npy", mmap_mode="r")
            self._offsets[name] = np.load(folder / f"{name}.offsets.npy", mmap_mode="r")
        self._classes = {name: np.load(folder / f"{name}.npy") for name in LABELS}
        self.languages = sorted(
            name.partition(".")[2] for name in index["fields"] if name.startswith("translation.")
        )
        """Languages that there are translations into."""

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder, "split": self._split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= TokenStore(**state).__dict__

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _prompts(self) -> SpeakerPrompts:
        return SpeakerPrompts(self._classes["speaker"], self.sizes("units", -1))

    def record(
        self, row: int, *, to: int = -1, prompting: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the fields of an utterance.

        Args:
            row: its number.
            to: number of a language to go to.
            prompting: draws another utterance of the speaker for ``prompt_units``, of which there
                must be one; without it, there are none.
        """
        record: dict[str, Any] = {"id": self.ids[row]}
        for name in ("units", "text"):
            if name in self._tokens:
                record[name] = self._field(name, row)
        if "codes" in self._tokens:
            record["codes"] = self._field("codes", row).T
        for name in LABELS:
            number = self._classes[name][row]
            record[name] = self.labels[name][number] if number >= 0 else None
        path = None if self._features is None else self._features[row]
        if path is not None:
            record["features"] = np.load(path)
        if self._voices is not None and self._voice[row] >= 0:
            record["voice"] = np.asarray(self._voices[self._voice[row]])
        if prompting is not None:
            record["prompt_units"] = self._field("units", self._prompts.draw(row, prompting))
        if to >= 0:
            record["to"] = self.languages[to]
            record["translation"] = self._field(f"translation.{self.languages[to]}", row)
        return record

    def tokens_of_text(self) -> Iterator[Int[np.ndarray, "L"]]:
        """Yield the tokens of whole texts and translations, many of them together."""
        for name, tokens in self._tokens.items():
            if name == "text" or name.startswith("translation."):
                offsets, row = self._offsets[name], 0
                while row + 1 < len(offsets):
                    end = int(np.searchsorted(offsets, offsets[row] + BLOCK, side="right")) - 1
                    end = max(end, row + 1)
                    yield np.asarray(tokens[offsets[row] : offsets[end]])
                    row = end

    def _field(self, name: str, row: int) -> np.ndarray:
        start, end = self._offsets[name][row : row + 2]
        return np.asarray(self._tokens[name][start:end])

    def examples(
        self, fields: Sequence[str], *, task: str
    ) -> list[tuple[int, Int[np.ndarray, "U"]]]:
        """Return the utterances that have all ``fields``, by number of the language to go to.

        There is one entry, of language -1, where no field is a translation.

        Raises:
            ConfigError: no utterance has them all; ``task`` and the missing field are named.
        """
        complaint = self.complaint(fields)
        if complaint is not None:
            raise ConfigError(f"task {task}: {complaint}, or leave the task out (--tasks)")
        return self._found(fields)

    def _found(self, fields: Sequence[str]) -> list[tuple[int, Int[np.ndarray, "U"]]]:
        targets = range(len(self.languages)) if "translation" in fields else (-1,)
        return [(to, self._having(fields, to)) for to in targets]

    def complaint(self, fields: Sequence[str]) -> str | None:
        """Return which of ``fields`` is missing, where, and what helps; None if nothing is."""
        if any(len(rows) for _, rows in self._found(fields)):
            return None
        missing = self._missing(fields)
        cure = CURES.get(missing, "add it to the manifest and encode again")
        among = _of(self._split)
        return f"no utterance{among} has {', '.join(fields)}; {missing} is missing: {cure}"

    def optional(self, fields: Sequence[str]) -> bool:
        """Tell whether what is missing is the corpus's own, and not what an option brings."""
        return self._missing(fields) not in BY_OPTION

    def _having(self, fields: Sequence[str], to: int) -> Int[np.ndarray, "U"]:
        there = np.ones(len(self), bool)
        for name in fields:
            if name in CLASSES:
                there &= name == "to" or self._classes[name] >= 0
            else:
                there &= self.sizes(name, to) > 0
        return np.flatnonzero(there)

    def sizes(self, name: str, to: int = -1) -> Int[np.ndarray, "U"]:
        """Return the size of a field of every utterance: tokens, frames, or 1 for a vector.

        Of ``prompt_units``, which are drawn later, it is the most that it can be.
        """
        name = f"translation.{self.languages[to]}" if name == "translation" else name
        if name == "features":
            return self._frames
        if name == "prompt_units":
            return self._prompts.longest
        if name == "voice":
            there = np.zeros(len(self), bool) if self._voices is None else self._voice >= 0
            return there.astype(np.int64)
        if name not in self._offsets:
            return np.zeros(len(self), np.int64)
        return np.diff(self._offsets[name])

    def _missing(self, fields: Sequence[str]) -> str:
        for name in fields:
            if name in ("to", "translation"):
                if not self.languages:
                    return "translation"
            elif name in CLASSES:
                if (self._classes[name] < 0).all():
                    return name
            elif not self.sizes(name, -1).any():
                return name
        return "one or another of them"
