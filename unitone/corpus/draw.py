"""A random part of a corpus, so many seconds of it, whose cost doesn't grow with the corpus.

Every utterance has a key, 64 random bits that depend on the seed and its id alone. Drawn are the
utterances of smallest keys, the fewest that have the seconds asked for: each is as likely as any
other, and neither the order of the manifest nor its form nor what reads it makes a difference. What
is drawn for more seconds starts with what is drawn for fewer.

The manifest is read once, line by line, and only lines that may be drawn are looked into. In memory
are the lines drawn so far. Durations that the manifest doesn't state come from the headers of the
recordings, of those drawn only.
"""

import heapq
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from unitone import seeding
from unitone.corpus import audio
from unitone.corpus.corpus import (
    Corpus,
    checked,
    no_such_split,
    nothing_usable,
    rows_of,
    unique,
)
from unitone.corpus.utterance import Entry, Row, Skipped, Utterance
from unitone.errors import CorpusError

_MICRO = 1_000_000
"""Durations are added up in microseconds: sums of integers do not depend on their order."""
_SHORT = 1 * _MICRO
"""What is taken for an unknown duration while the manifest is read: less than most."""
_WIDER = 4
"""How much more is kept where headers show that it was too little."""
_HEADERS = 256
"""Headers read at a time."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The utterances drawn from a corpus."""

    utterances: tuple[Utterance, ...]
    """In the order drawn, the first of them first."""
    skipped: tuple[Skipped, ...]
    """Lines that can't be used: those that were drawn, and those of which no id can be told."""
    seconds: float | None
    """Of the utterances, by manifest and headers; None where nobody asked."""
    whole: bool
    """Whether that is all there is."""
    num_utterances: int
    """Lines of the corpus that may hold an utterance."""
    corpus_seconds: float | None
    """Of all of them, as the manifest states it; None where it doesn't."""

    @classmethod
    def of(cls, corpus: Corpus) -> "Draw":
        """Return all of a corpus, in its own order."""
        utterances = tuple(corpus.utterances)
        seconds = corpus.stated_seconds(range(len(corpus.entries)))
        return cls(
            utterances=utterances,
            skipped=tuple(corpus.skipped),
            seconds=seconds,
            whole=True,
            num_utterances=len(utterances),
            corpus_seconds=seconds,
        )


def draw(path: Path, *, split: str | None, seconds: float, seed: int, workers: int) -> Draw:
    """Draw utterances of ``seconds`` of speech or a little more, or take all where there is less.

    Args:
        path: manifest, in any of the known forms.
        split: draw from this one; None = from all.
        seconds: finite and above 0.
        seed: another seed draws others.
        workers: threads that read headers; no result depends on it.

    Raises:
        ConfigError: there is no such manifest, or nothing is in that split.
        CorpusError: the whole corpus was drawn and nothing in it can be used.
    """
    wanted = max(round(seconds * _MICRO), 1)
    reach = wanted
    while True:
        scan = _Scan(seed=seed, split=split, reach=reach)
        for row in rows_of(path):
            scan.add(row)
        taken, total = _first(scan.sorted(), wanted, workers)
        if total >= wanted or not scan.dropped:
            break
        reach *= _WIDER
    whole = not scan.dropped and len(taken) == len(scan.heap)
    utterances = tuple(entry for entry in taken if isinstance(entry, Utterance))
    skipped = [*scan.broken, *(entry for entry in taken if isinstance(entry, Skipped))]
    skipped.sort(key=lambda one: one.line)
    if whole and not utterances:
        if split is not None and scan.other_splits:
            raise no_such_split(path, split, scan.other_splits)
        raise nothing_usable(path, skipped)
    stated = total if whole else scan.stated
    return Draw(
        utterances=utterances,
        skipped=tuple(skipped),
        seconds=total / _MICRO,
        whole=whole,
        num_utterances=len(utterances) if whole else scan.count,
        corpus_seconds=None if stated is None else stated / _MICRO,
    )


@dataclass(kw_only=True)
class _Scan:
    """The entries of smallest keys seen so far, the fewest that reach so many microseconds."""

    seed: int
    split: str | None
    reach: int
    heap: list[tuple[int, int, int | None, Entry]] = field(default_factory=list)
    """Negative key, negative line, microseconds and entry: the first is the first to go."""
    broken: list[Skipped] = field(default_factory=list)
    count: int = 0
    stated: int | None = 0
    other_splits: set[str | None] = field(default_factory=set)
    dropped: bool = False

    def __post_init__(self) -> None:
        self._key = seeding.keys(self.seed, "draw")
        self._limit = 1 << 64
        self._held = 0
        self._first_line: dict[str, int] = {}

    def add(self, row: Row | Skipped) -> None:
        """Take in one line of the manifest."""
        if isinstance(row, Skipped):
            self.broken.append(row)
            return
        name, seconds, split, _ = row
        if self.split is not None and split != self.split and isinstance(split, str | None):
            self.other_splits.add(split)
            return
        entry = None
        if name is None:
            entry = checked(row)
            if isinstance(entry, Skipped):
                self.broken.append(entry)
                return
            name = entry.id
        self.count += 1
        if self.stated is not None:
            self.stated = None if seconds is None else self.stated + round(seconds * _MICRO)
        key = self._key(name)
        if key > self._limit:
            self.dropped = True
            return
        self._keep(key, entry or checked(row))

    def _keep(self, key: int, entry: Entry) -> None:
        if isinstance(entry, Utterance) and self.split is not None and entry.split != self.split:
            self.count -= 1  # only all its fields together told
            self.other_splits.add(entry.split)
            return
        entry = unique(entry, self._first_line)
        length = _stated(entry)
        self._held += _SHORT if length is None else length
        heapq.heappush(self.heap, (-key, -entry.line, length, entry))
        while self._held - _assumed(self.heap[0][2]) >= self.reach:
            _, _, length, last = heapq.heappop(self.heap)
            self._held -= _assumed(length)
            self.dropped = True
            if isinstance(last, Utterance):
                del self._first_line[last.id]
        if self._held >= self.reach:
            self._limit = -self.heap[0][0]

    def sorted(self) -> list[tuple[Entry, int | None]]:
        """Return the entries by increasing key, with their microseconds."""
        return [(entry, length) for _, _, length, entry in sorted(self.heap, reverse=True)]


def _stated(entry: Entry) -> int | None:
    """Return the microseconds of an entry that the manifest states; None where it doesn't."""
    if isinstance(entry, Skipped):
        return 0
    stated = entry.stated_duration
    return None if stated is None else round(stated * _MICRO)


def _assumed(length: int | None) -> int:
    return _SHORT if length is None else length


def _first(
    entries: Sequence[tuple[Entry, int | None]], wanted: int, workers: int
) -> tuple[list[Entry], int]:
    """Return the first entries that reach ``wanted`` microseconds, and how many they have."""
    taken: list[Entry] = []
    total = 0
    for entry, length in _with_headers(entries, workers):
        if total >= wanted:
            break
        taken.append(entry)
        total += length
    return taken, total


def _with_headers(
    entries: Sequence[tuple[Entry, int | None]], workers: int
) -> Iterator[tuple[Entry, int]]:
    """Yield entries and microseconds; those not stated from headers, a block at a time."""
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        for first in range(0, len(entries), _HEADERS):
            block = entries[first : first + _HEADERS]
            yield from zip((entry for entry, _ in block), pool.map(_length, block), strict=True)


def _length(item: tuple[Entry, int | None]) -> int:
    """Return microseconds: stated, or of the header; 0 where it can't be read."""
    entry, length = item
    if length is not None or isinstance(entry, Skipped):
        return length or 0
    try:
        return round(audio.header_seconds(entry.clip) * _MICRO)
    except CorpusError:
        return 0  # what is wrong is said when the recording is read
