"""Corpora: one utterance record, and the readers that make it from what people have.

The native form is a Lhotse CutSet (``cuts.jsonl.gz``, or a Shar directory). Read as well: plain
JSON lines (``id, audio, text, speaker, language, gender, duration, split, translation``; ``audio``
relative to the manifest; a part of it by ``start`` or ``offset``, ``duration`` or ``end``, and
``channel``), NeMo JSON lines (``audio_filepath, duration, offset, text, lang``; Canary's
``source_lang, target_lang``), fairseq TSV (a root, then ``path<TAB>samples``; words from a ``.wrd``
or ``.ltr`` file beside it) and Common Voice TSV (``path, sentence``; ``clips/`` beside it).

A line that cannot be used becomes a `Skipped` record, so one bad line never stops a long job.
``python -m unitone.corpus.cuts --manifest M --out cuts.jsonl.gz`` turns any of them into a CutSet.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unitone import files
from unitone.corpus.lhotse_cuts import read_lhotse, read_shar
from unitone.corpus.lines import first_object
from unitone.corpus.manifests import (
    Reader,
    fairseq_texts_file,
    read_nemo,
    read_plain,
    tsv_reader,
)
from unitone.corpus.utterance import Entry, Row, Skipped, Utterance
from unitone.errors import ConfigError, CorpusError


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A manifest read into memory, in its own order."""

    path: Path
    sha256: str
    entries: tuple[Entry, ...]

    def stated_seconds(self, indices: Iterable[int]) -> float | None:
        """Return the audio of the entries ``indices``, None if the manifest doesn't say."""
        total = 0.0
        for index in indices:
            entry = self.entries[index]
            if isinstance(entry, Skipped):
                continue
            if entry.stated_duration is None:
                return None
            total += entry.stated_duration
        return total

    @property
    def utterances(self) -> list[Utterance]:
        """The usable entries."""
        return [entry for entry in self.entries if isinstance(entry, Utterance)]

    def only(self, split: str | None) -> "Corpus":
        """Return the entries of one split; None = all of them.

        Raises:
            ConfigError: no utterance is in that split.
        """
        if split is None:
            return self
        # a line that can't be used says nothing of its split: it is reported with every one
        kept = tuple(e for e in self.entries if isinstance(e, Skipped) or e.split == split)
        if not any(isinstance(entry, Utterance) for entry in kept):
            raise no_such_split(self.path, split, (one.split for one in self.utterances))
        return Corpus(path=self.path, sha256=_of_split(self.sha256, split), entries=kept)

    @property
    def skipped(self) -> list[Skipped]:
        """The lines that could not be used."""
        return [entry for entry in self.entries if isinstance(entry, Skipped)]


def read_corpus(path: Path | str) -> Corpus:
    """Read a manifest in any of the known forms.

    Raises:
        ConfigError: there is no such manifest, or its form is not one of the known ones.
        CorpusError: it holds no usable utterance.
    """
    path = files.path_of(path, "a manifest")
    entries = tuple(entries_of(path))
    if not any(isinstance(entry, Utterance) for entry in entries):
        raise nothing_usable(path, (entry for entry in entries if isinstance(entry, Skipped)))
    return Corpus(path=path, sha256=manifest_hash(path), entries=entries)


def rows_of(path: Path) -> Iterator[Row | Skipped]:
    """Yield the lines of a manifest, one after the other, their fields as yet unchecked.

    Raises:
        ConfigError: there is no such manifest, or its form is not one of the known ones.
    """
    if not path.exists():
        raise ConfigError(f"--manifest {path}: no such file or directory")
    # absolute, so that workers in other folders find the recordings
    return _reader_of(path)(path.absolute())


def entries_of(path: Path) -> Iterator[Entry]:
    """Yield the lines of a manifest as utterances, each id once, and why others are none."""
    first_line: dict[str, int] = {}
    for row in rows_of(path):
        yield unique(row if isinstance(row, Skipped) else checked(row), first_line)


def checked(row: Row) -> Entry:
    """Return the utterance of a line, or why it has none."""
    entry = row.entry()
    if isinstance(entry, Utterance) and not _is_text(entry):
        name = entry.id.encode("utf-8", "replace").decode()
        reason = "a field holds half a surrogate pair (\\ud800 to \\udfff), which is no text"
        return Skipped(id=name, line=entry.line, reason=reason)
    return entry


def unique(entry: Entry, first_line: dict[str, int]) -> Entry:
    """Note the line of an utterance in ``first_line``, by its id; refuse a second of that id."""
    if isinstance(entry, Skipped):
        return entry
    first = first_line.setdefault(entry.id, entry.line)
    if first == entry.line:
        return entry
    return entry.skipped(f"duplicate id, first on line {first}")


def nothing_usable(path: Path, skipped: Iterable[Skipped]) -> CorpusError:
    """Return the error of a manifest without a usable utterance."""
    first = next((one.reason for one in skipped), "it has no lines")
    return CorpusError(f"{path}: no usable utterance; the first problem: {first}")


def no_such_split(path: Path, split: str, found: Iterable[str | None]) -> ConfigError:
    """Return the error of a split without an utterance; ``found`` are those of all utterances."""
    names = sorted({name for name in found if name})
    others = (
        f"found {', '.join(names)}"
        if names
        else 'no line has a "split" field; leave --split out, or give every line one'
    )
    return ConfigError(f"--split {split}: no utterance of {path} has it; {others}")


def _is_text(utterance: Utterance) -> bool:
    """Tell whether every text of the record can be written as UTF-8."""
    known = utterance
    texts = (known.id, known.text, known.language, known.speaker, known.gender, known.split)
    symbols = (symbol for symbol, _, _ in known.labels)
    every = [*texts, str(known.audio), *known.translation, *known.translation.values(), *symbols]
    try:
        "".join(text for text in every if text).encode()
    except UnicodeEncodeError:
        return False
    return True


_CSV = (
    'a CSV file: give JSON lines with "id", "audio" and "text", e.g. by `python -c "import csv, '
    'json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin)]"`, its fields renamed'
)
_KALDI = (
    "Kaldi's data: make Lhotse cuts of its directory with `lhotse kaldi import DIR RATE OUT` and "
    "`lhotse cut simple`"
)


def _reader_of(path: Path) -> Reader:
    if path.is_dir():
        for name in ("cuts.jsonl.gz", "cuts.jsonl"):
            if (path / name).is_file():
                return lambda folder: read_lhotse(folder / name)
        if any(path.glob("cuts.*.jsonl*")):
            return read_shar
        if (path / "wav.scp").is_file():
            raise ConfigError(f"--manifest {path}: {_KALDI}")
        raise ConfigError(f"--manifest {path}: a directory without cuts.jsonl.gz or Shar files")
    name = path.name.removesuffix(".gz")
    if name.endswith(".tsv"):
        return tsv_reader(path)
    if name.endswith(".csv"):
        raise ConfigError(f"--manifest {path}: {_CSV}")
    if name in ("wav.scp", "segments", "utt2spk", "text"):
        raise ConfigError(f"--manifest {path}: {_KALDI}")
    if not name.endswith((".jsonl", ".json")):
        raise ConfigError(
            f"--manifest {path}: not a known form; give JSON lines (.jsonl), Lhotse cuts "
            "(cuts.jsonl.gz or a Shar directory), or a .tsv of fairseq or Common Voice"
        )
    return _json_reader(path)


def _json_reader(path: Path) -> Reader:
    """Return the reader of a JSON-lines file, by its first object."""
    first = first_object(path)
    kind = first.get("type")
    if (isinstance(kind, str) and kind.endswith("Cut")) or {"recording", "start"} <= first.keys():
        return read_lhotse
    lhotse = {
        "a RecordingSet": {"sampling_rate", "sources"},
        "a SupervisionSet": {"recording_id", "start", "duration"},
        "a FeatureSet": {"num_frames", "storage_type"},
    }
    for name, names in lhotse.items():
        if names <= first.keys():
            raise ConfigError(
                f"--manifest {path}: {name} of Lhotse; make a CutSet of the recordings and the "
                "supervisions with `lhotse cut simple -r RECORDINGS -s SUPERVISIONS cuts.jsonl.gz`"
            )
    return read_nemo if "audio_filepath" in first else read_plain


BLOCKS, BLOCK = 64, 1 << 16
"""Of a larger archive, so many blocks of so many bytes are hashed: 4 MiB, evenly spaced."""


def _of_split(sha256: str, split: str) -> str:
    return hashlib.sha256(f"{sha256} {split}".encode()).hexdigest()


def manifest_hash(path: Path, split: str | None = None) -> str:
    """Hash the bytes of all that is read (of a directory: of its cut files, in order of name).

    The audio of Shar archives is sampled (`_archive_hash`), so that an archive of any size opens.

    Raises:
        ConfigError: there is no such manifest.
    """
    if not path.exists():
        raise ConfigError(f"--manifest {path}: no such file or directory")
    texts = fairseq_texts_file(path) if path.name.removesuffix(".gz").endswith(".tsv") else None
    files = [path, *([texts] if texts else [])]
    if path.is_dir():
        files = sorted(path.glob("cuts*")) + sorted(path.glob("recording.*.jsonl*"))
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    for archive in sorted(path.glob("recording.*.tar*")) if path.is_dir() else ():
        digest.update(_archive_hash(archive))
    whole = digest.hexdigest()
    return whole if split is None else _of_split(whole, split)


def _archive_hash(path: Path) -> bytes:
    """Hash the size of a file and blocks of it; all of it where it is small."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}".encode())
    spaced = {index * max(size - BLOCK, 0) // (BLOCKS - 1) for index in range(BLOCKS)}
    whole = size <= BLOCKS * BLOCK
    with path.open("rb") as file:
        for start in range(0, size, BLOCK) if whole else sorted(spaced):
            file.seek(start)
            digest.update(file.read(BLOCK))
    return digest.digest()
