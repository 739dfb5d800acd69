"""Token shards: Parquet parts with one row an utterance, written so that nothing is ever lost.

Part p holds entries ``p * shard_size`` to ``(p + 1) * shard_size`` of the manifest. While a part is
under way every finished utterance is a line of its journal; when all are there, the part is written
from the journal in the manifest's order, under a temporary name, and renamed. So a run that was
killed goes on after its last utterance, and its parts have the bytes of an uninterrupted run,
whatever the order in which the utterances were finished.

    OUT/part-00000.parquet …   columns: see `unitone.tokenizers.parts`
    OUT/tokens.json            index: passport hash, parts with their first rows, totals
    OUT/passport.json          of the tokenizer
    OUT/skipped.jsonl          utterances without a row, and why
"""

import json
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from unitone import config, files
from unitone.corpus.corpus import Corpus
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.resume import Journal, require_unchanged
from unitone.tokenizers.passport import CodecPassport, Passport, require_same

INDEX = "tokens.json"
SKIPPED = "skipped.jsonl"
ROW_GROUP = 256
"""Rows that are read from disk together."""
SKIPPED_OF_PART = "unitone.skipped"
"""Where a part keeps what was skipped in it."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """What the column ``codes`` holds."""

    codec: CodecPassport
    levels: int
    """The first so many of the codec's."""

    def __str__(self) -> str:
        codec = self.codec
        return f"{self.levels} of {codec.name}'s {codec.levels} levels, {codec.weight_hash[:12]}"


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The units of one utterance; ``expand(units, durations)`` has one unit a frame."""

    index: int
    """Position among the manifest's entries."""
    units: Int32[np.ndarray, "S"]
    durations: Int32[np.ndarray, "S"]
    """Frames each unit lasts; all 1 where the tokenizer doesn't deduplicate."""
    num_samples: int
    """At 16 kHz."""
    codes: Int32[np.ndarray, "Q T"] | None = None
    """Of a codec, where the shards have them."""


LOOKED_AT = 10_000
"""Recordings that are asked, when shards are taken up, whether they were written anew."""


class ShardWriter:
    """Writes the shards of one corpus; ``add`` takes results in any order, as they come."""

    def __init__(
        self,
        out: Path,
        *,
        corpus: Corpus,
        passport: Passport,
        shard_size: int,
        codes: Codes | None = None,
    ) -> None:
        """Begin or take up the shards in ``out``; with ``codes``, every result has some."""
        if shard_size < 1:
            raise ConfigError(f"--shard-size must be at least 1, got {shard_size}")
        self._out = out
        self._corpus = corpus
        self._passport = passport
        self._codes = codes
        self._size = shard_size
        self._journals: dict[int, Journal] = {}
        self._check_folder()
        self._times: dict[int, int | None] = {}
        self._missing = self._find_missing()
        self._check_recordings()
        for part in sorted(self._missing):
            self._finish_if_complete(part)

    def missing(self) -> list[int]:
        """Return the positions of the utterances that still have to be encoded, in order."""
        return sorted(index for indices in self._missing.values() for index in indices)

    def add(self, result: Tokens | Skipped, *, index: int) -> None:
        """Keep the result of entry ``index``; it is safe on disk when this returns."""
        part = index // self._size
        if index not in self._missing.get(part, ()):
            return
        if isinstance(result, Skipped):
            record: dict[str, Any] = {"index": index, "reason": result.reason}
        else:
            record = {
                "index": index,
                "units": result.units.tolist(),
                "durations": result.durations.tolist(),
                "num_samples": result.num_samples,
            }
            if result.codes is not None:
                record["codes"] = result.codes.tolist()
        self._journal(part).append(record)
        self._missing[part].discard(index)
        self._finish_if_complete(part)

    def finish(self) -> dict[str, Any]:
        """Write index, list of skipped entries and README; return the index.

        Raises:
            CorpusError: no utterance at all could be encoded.
        """
        from unitone.tokenizers import parts

        assert not self.missing()
        listed, skipped = [], [*self._corpus.skipped]
        totals: Counter[str] = Counter()
        for part in range(self._num_parts):
            path = self._path(part)
            listed.append({"file": path.name, "first_row": totals["rows"]})
            totals += parts.count(path)
            lines = json.loads(parts.read_metadata(path, SKIPPED_OF_PART) or "[]")
            skipped += [Skipped(**line) for line in lines]
        skipped.sort(key=lambda item: item.line)
        files.write_json_lines(self._out / SKIPPED, (item.to_json() for item in skipped))
        if totals["rows"] == 0:
            for part in range(self._num_parts):  # so that a run after the cure tries again
                self._path(part).unlink(missing_ok=True)
            raise CorpusError(
                f"{self._corpus.path}: no utterance could be encoded; the first reason: "
                f"{skipped[0].reason}"
            )
        index = {
            **self._identity(),
            "num_rows": totals["rows"],
            "num_skipped": len(skipped),
            "num_samples": totals["samples"],
            "num_units": totals["units"],
            "num_frames": totals["frames"],
            "parts": listed,
        }
        files.write_readme(self._out, _readme(index, self._passport))
        files.write_json(self._out / INDEX, index)
        self.close()
        shutil.rmtree(self._out / ".journal", ignore_errors=True)  # the parts are whole
        return index

    def close(self) -> None:
        """Close the journals; what was added is on disk already."""
        for journal in self._journals.values():
            journal.close()
        self._journals.clear()

    @property
    def _num_parts(self) -> int:
        return -(-len(self._corpus.entries) // self._size)

    def _identity(self) -> dict[str, Any]:
        identity = {
            "format": 1,
            "passport_hash": self._passport.hash,
            "manifest_sha256": self._corpus.sha256,
            "shard_size": self._size,
        }
        if self._codes is not None:
            identity["codes"] = config.to_dict(self._codes)
        return identity

    def _check_folder(self) -> None:
        """Refuse a folder that holds the shards of another corpus, tokenizer or shard size."""
        if (self._out / "build.json").is_file():
            raise ConfigError(f"--out {self._out} is a tokenizer directory; choose another --out")
        files.require_own(self._out, INDEX, ".journal")
        begun = self._out / ".journal" / "run.json"
        for path in (self._out / INDEX, begun):
            if path.is_file():
                found = files.read_json(path)
                codes = _codes_in(found, path)
                require_unchanged(
                    found | {"codes": config.to_dict(codes) if codes else {}},
                    {"codes": {}} | self._identity(),
                    where=self._out,
                )
        if not (self._out / INDEX).is_file():
            self._out.mkdir(parents=True, exist_ok=True)
            files.write_json(begun, self._identity())
        self._passport.save(self._out)

    def _check_recordings(self) -> None:
        """Refuse to go on with units of recordings that were written anew since.

        Raises:
            ConfigError: naming the first; of many files, `LOOKED_AT` evenly spaced are asked.
        """
        entries = self._corpus.entries
        step = max(len(entries) // LOOKED_AT, 1)
        for number in range(0, len(entries), step):
            audio = entry.audio if isinstance(entry := entries[number], Utterance) else None
            part = number // self._size
            if number in self._missing.get(part, ()):
                continue
            made = self._made(part)
            if audio is not None and made is not None and _written(audio) > made:
                raise ConfigError(
                    f"{audio} was written after {self._out} was made of it: remove {self._out}, or "
                    "choose another --out; where only the time of the file is new, `touch` what is "
                    f"in {self._out}"
                )

    def _made(self, part: int) -> int | None:
        """Return when a part was written, or its journal; None where there is neither."""
        if part not in self._times:
            journal = self._out / ".journal" / f"part-{part:05d}.jsonl"
            there = [path for path in (self._path(part), journal) if path.is_file()]
            self._times[part] = _written(there[0]) if there else None
        return self._times[part]

    def _find_missing(self) -> dict[int, set[int]]:
        missing: dict[int, set[int]] = {}
        for part in range(self._num_parts):
            if self._path(part).is_file():
                continue
            entries = self._entries(part)
            wanted = {index for index, entry in entries if isinstance(entry, Utterance)}
            missing[part] = wanted - {record["index"] for record in self._journal(part).records()}
        return missing

    def _entries(self, part: int) -> list[tuple[int, Utterance | Skipped]]:
        first = part * self._size
        return list(enumerate(self._corpus.entries[first : first + self._size], start=first))

    def _path(self, part: int) -> Path:
        return self._out / f"part-{part:05d}.parquet"

    def _journal(self, part: int) -> Journal:
        if part not in self._journals:
            path = self._out / ".journal" / f"part-{part:05d}.jsonl"
            self._journals[part] = Journal(path)
        return self._journals[part]

    def _finish_if_complete(self, part: int) -> None:
        if self._missing.get(part):
            return
        records = {record["index"]: record for record in self._journal(part).records()}
        rows, skipped = [], []
        for index, entry in self._entries(part):
            if isinstance(entry, Skipped):
                continue
            record = records[index]
            if "reason" in record:
                skipped.append(Skipped(id=entry.id, line=entry.line, reason=record["reason"]))
            else:
                rows.append(_row(entry, record))
        from unitone.tokenizers import parts

        parts.write(
            self._path(part),
            rows,
            metadata={
                "unitone.passport_hash": self._passport.hash,
                SKIPPED_OF_PART: json.dumps([item.to_json() for item in skipped]),
            },
            row_group=ROW_GROUP,
            codes=self._codes is not None,
        )
        self._journals.pop(part).remove()
        del self._missing[part]


def _row(utterance: Utterance, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": utterance.id,
        "units": record["units"],
        "durations": record["durations"],
        "text": utterance.text,
        "translation": [
            {"language": language, "text": text}
            for language, text in sorted(utterance.translation.items())
        ],
        "language": utterance.language,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "split": utterance.split,
        "num_samples": record["num_samples"],
        "codes": record.get("codes"),
    }


def _readme(index: dict[str, Any], passport: Passport) -> str:
    hours = index["num_samples"] / 16_000 / 3600
    encoder = passport.encoder
    return (
        "# Token shards\n\n"
        f"{index['num_rows']} utterances, {hours:.3f} hours, {index['num_units']} units in "
        f"{index['num_frames']} frames; {index['num_skipped']} entries skipped "
        f"(`{SKIPPED}` says why).\n\n"
        f"Made by `python -m tokenizers.encode`: {encoder.name} layer {encoder.layer}, "
        f"k = {passport.kmeans.k}, {passport.frames.frame_rate:g} frames a second "
        "(`passport.json`).\n\n"
        f"{_readme_of_codes(index.get('codes'))}"
        'Read them with `datasets.load_dataset("parquet", data_files="part-*.parquet")` or '
        "`unitone.tokenizers.shards.TokenShards`.\n"
    )


def _readme_of_codes(codes: dict[str, Any] | None) -> str:
    if codes is None:
        return ""
    codec = codes["codec"]
    return (
        f"Codes by `python -m unitone.codecs.encode`: {codec['name']}, the first "
        f"{codes['levels']} of {codec['levels']} levels of {codec['codebook_size']}, "
        f"{codec['frame_rate']:g} frames a second (`{INDEX}`).\n\n"
    )


_ENCODE = "encode again into another folder"


def _check_index(index: Any, path: Path) -> None:
    """Refuse an index that says nothing of its rows and parts, or what can't be."""
    try:
        first = [part["first_row"] for part in index["parts"]]
        known = [index["num_rows"], *first]
        files_named = all(isinstance(part["file"], str) for part in index["parts"])
    except (TypeError, KeyError):
        known, first, files_named = [], [], False
    counted = bool(known) and all(type(number) is int for number in known)
    if not (
        files_named
        and counted
        and first == sorted(first)
        and (first[:1] == [0] or not known[0])
        and known[0] >= len(first)
    ):
        raise CheckpointError(f"{path} is damaged: its rows and parts don't fit; {_ENCODE}")


def _written(path: Path) -> int:
    """Return when a file was written, in nanoseconds; 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


class TokenShards:
    """Rows of finished shards by number, a row group in memory at a time."""

    def __init__(self, folder: Path | str, *, passport: Passport | None = None) -> None:
        """Open ``folder``; with ``passport``, refuse shards of another tokenizer.

        Raises:
            CheckpointError: the folder holds no finished shards.
            ConfigError: the passports differ; the fields are named.
        """
        folder = files.path_of(folder, "a directory of token shards")
        path = folder / INDEX
        if not path.is_file():
            raise CheckpointError(
                f"{folder} holds no {INDEX}: not finished; run `python -m tokenizers.encode` again"
            )
        self.passport = Passport.load(folder)
        if passport is not None:
            require_same(passport, self.passport, what=str(folder))
        self.index: dict[str, Any] = files.read_json(path, cure=_ENCODE)
        _check_index(self.index, path)
        if self.index.get("passport_hash") != self.passport.hash:
            raise CheckpointError(
                f"{folder}: passport.json isn't the one its shards were made with; encode again"
            )
        self.codes = _codes_in(self.index, path)
        """What the column ``codes`` holds, where there is one."""
        self._folder = folder
        self._first_rows = [part["first_row"] for part in self.index["parts"]]
        self._group: tuple[int, int] | None = None
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return int(self.index["num_rows"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        part = bisect_right(self._first_rows, row) - 1
        inside = row - self._first_rows[part]
        group = (part, inside // ROW_GROUP)
        if group != self._group:
            from unitone.tokenizers import parts

            path = self._folder / self.index["parts"][part]["file"]
            self._rows = parts.read_group(path, group[1])
            self._group = group
        if inside % ROW_GROUP >= len(self._rows):
            raise CheckpointError(f"{self._folder}: fewer rows than {INDEX} says; {_ENCODE}")
        found: dict[str, Any] = self._rows[inside % ROW_GROUP]
        return found

    def rows(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the rows from ``start`` on, without reading the ones before it."""
        for row in range(start, len(self)):
            yield self[row]

    def require_codes(self) -> Codes:
        """Return what the codes are.

        Raises:
            ConfigError: there are none.
        """
        if self.codes is None:
            raise ConfigError(
                f"{self._folder} holds no codes of a codec: make shards that do with "
                f"`python -m unitone.codecs.encode --tokens {self._folder} --codec DIR …`"
            )
        return self.codes

    def ids(self) -> list[str]:
        """Return the ids of the rows, in order, without reading the rest."""
        found: list[str] = []
        from unitone.tokenizers import parts

        for part in self.index["parts"]:
            found += parts.column(self._folder / part["file"], "id").to_pylist()
        return found

    def distinct(self, column: str) -> set[str]:
        """Return the different values of a text column; of ``translation``, the languages."""
        found: set[str] = set()
        from unitone.tokenizers import parts

        for part in self.index["parts"]:
            values = parts.column(self._folder / part["file"], column)
            if column == "translation":
                values = values.combine_chunks().flatten().field("language")
            found |= {value for value in values.unique().to_pylist() if value is not None}
        return found


def _codes_in(index: dict[str, Any], path: Path) -> Codes | None:
    values = index.get("codes")
    return None if values is None else config.from_dict(Codes, values, where=f"{path}: codes")
