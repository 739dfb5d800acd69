"""Subwords over units: SentencePiece's unigram model (Kudo 2018, arXiv 1804.10959) on integers.

Unit u is written as the private character U+F0000 + u, which no normalizer, script splitter or
white-space rule knows, so any sequence of units is one "word" and encoding loses nothing. (The
usual carrier, U+4E00 + u, ends at 20,992 units and shares its characters with Chinese text.)

Ids run from 0 to ``num_subwords - 1`` and every one of them stands for units: SentencePiece's own
``<unk>``, its id 0, is left out, so a piece here is SentencePiece's id less 1. Every unit is a
piece by itself, seen in training or not, so ``encode`` is total. Axes: T units, P pieces (P <= T).
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Int, Int32

from unitone import files, seeding
from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.text import unigram

MAX_K = 65_534
"""Characters of the private plane 15: U+F0000 to U+FFFFD."""

_BASE = 0xF0000
_CHUNK = 1000
"""Units in one training sentence; 4 bytes each, and SentencePiece drops what exceeds 4192 bytes."""


class UnitSubwords:
    """A trained model; immutable, picklable, safe to share between threads."""

    def __init__(self, model: bytes) -> None:
        """Read a serialized SentencePiece model that ``train`` has written."""
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise CheckpointError(f"not a SentencePiece model: {error}") from error
        self._model = model
        spelled = [
            _to_units(self._processor.id_to_piece(token))
            for token in range(1, self._processor.vocab_size())
        ]
        self._lengths = np.array([len(units) for units in spelled], np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._flat = np.concatenate(spelled) if spelled else np.zeros(0, np.int32)
        singles = np.sort(self._flat[self._starts[self._lengths == 1]])
        if not singles.size or not np.array_equal(singles, np.arange(singles.size)):
            raise CheckpointError("the SentencePiece model has pieces that are not units")
        self.k = int(singles.size)
        """Number of clusters: the units are 0 to k - 1."""
        self.num_subwords = len(spelled)
        """Number of pieces, the k single units among them."""
        self.hash = hashlib.sha256(model).hexdigest()
        """SHA-256 of the model, the same as of its file."""

    @classmethod
    def load(cls, path: Path | str) -> "UnitSubwords":
        """Read ``units.model``.

        Raises:
            CheckpointError: the file is missing or is not a unit subword model.
        """
        try:
            return cls(Path(path).read_bytes())
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: no unit subword model; build the tokenizer") from error
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def train(
        cls,
        sequences: Iterable[Int[np.ndarray, "_"]],
        *,
        k: int,
        num_subwords: int,
        out: Path,
        seed: int = 0,
        max_units: int = 20_000_000,
        max_piece_length: int = 16,
        allow_fewer: bool = False,
    ) -> "UnitSubwords":
        """Learn ``num_subwords`` pieces, write the model to ``out`` and return it.

        The result depends on the arguments alone, not on the machine's number of cores. Sequences
        are read once, one at a time; of more than ``max_units`` units a random sample is kept,
        which bounds the memory (measured: 72 bytes a unit). ``allow_fewer`` accepts what little
        data hold, at the least the k units alone, in place of an error.

        Raises:
            ConfigError: a unit is not in 0..k-1, the size cannot work, or the data are too few.
        """
        if not 1 <= k <= MAX_K:
            raise ConfigError(f"k must be 1..{MAX_K} for unit subwords, got {k}")
        if num_subwords <= k:
            raise ConfigError(
                f"there must be more unit subwords than the {k} units; {num_subwords} were asked "
                "for"
            )
        chunks = _sample_chunks(_checked_chunks(sequences, k), max_units=max_units, seed=seed)
        if not chunks:
            raise ConfigError("no units to learn subwords from: every sequence is empty")
        pieces = cls(
            _fit(chunks, k=k, num_subwords=num_subwords, max_piece_length=max_piece_length)
        )
        if pieces.num_subwords < num_subwords and not allow_fewer:
            fit = pieces.num_subwords
            less = f"ask for at most {fit}" if fit > k else "use the units themselves"
            raise ConfigError(
                f"the data hold only {fit} unit subwords, {num_subwords} were asked for: "
                f"give more data or {less}"
            )
        pieces.save(out)
        return pieces

    def save(self, path: Path) -> None:
        """Write the model; the bytes are those of ``hash``."""
        with files.replacing(path) as temporary:
            temporary.write_bytes(self._model)

    def encode(self, units: Int[np.ndarray, "T"]) -> Int32[np.ndarray, "P"]:
        """Return the most probable pieces.

        Raises:
            ValueError: a unit is not in 0..k-1.
        """
        tokens = self._processor.encode(self._to_text(units))
        return np.asarray(tokens, np.int32) - np.int32(1)

    def decode(self, pieces: Int[np.ndarray, "P"]) -> Int32[np.ndarray, "T"]:
        """Return the units that the pieces spell.

        Raises:
            ValueError: a piece is not in 0..num_subwords-1.
        """
        _check_range("unit piece", pieces, self.num_subwords)
        lengths = self._lengths[pieces]
        ends = np.cumsum(lengths)
        first = np.repeat(self._starts[pieces] - (ends - lengths), lengths)
        return self._flat[first + np.arange(first.size)]

    def _to_text(self, units: Int[np.ndarray, "T"]) -> str:
        _check_range("unit", units, self.k)
        return _to_text(units)


def _fit(
    chunks: list[Int32[np.ndarray, "_"]], *, k: int, num_subwords: int, max_piece_length: int
) -> bytes:
    def sentences() -> Iterator[str]:
        # Each unit once more than it was seen: a unit without a count gets no piece, whatever
        # ``required_chars`` and ``character_coverage`` say (tried with sentencepiece 0.2.3).
        yield from map(chr, range(_BASE, _BASE + k))
        yield from map(_to_text, chunks)

    try:
        return unigram.fit(
            sentences(),
            size=num_subwords + 1,  # and <unk>
            character_coverage=1.0,
            byte_fallback=False,
            add_dummy_prefix=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            max_sentencepiece_length=max_piece_length,
        )
    except RuntimeError as error:
        raise ConfigError(f"SentencePiece cannot learn these unit subwords: {error}") from error


def _checked_chunks(
    sequences: Iterable[Int[np.ndarray, "_"]], k: int
) -> Iterator[Int32[np.ndarray, "_"]]:
    for number, sequence in enumerate(sequences):
        try:
            _check_range("unit", sequence, k)
        except ValueError as error:
            raise ConfigError(f"sequence {number}: {error}") from error
        units = sequence.astype(np.int32)
        for start in range(0, units.size, _CHUNK):
            yield units[start : start + _CHUNK]


def _sample_chunks(
    chunks: Iterable[Int32[np.ndarray, "_"]], *, max_units: int, seed: int
) -> list[Int32[np.ndarray, "_"]]:
    """Keep the chunks with the smallest random keys, in their order, up to ``max_units`` units."""
    generator = seeding.stream(seed, "unit pieces")
    heap: list[tuple[float, int, np.ndarray]] = []
    held = 0
    for order, chunk in enumerate(chunks):
        heapq.heappush(heap, (-generator.random(), order, chunk))
        held += chunk.size
        while held > max_units and len(heap) > 1:
            held -= heapq.heappop(heap)[2].size
    return [chunk for _, _, chunk in sorted(heap, key=lambda entry: entry[1])]


def _to_text(units: Int[np.ndarray, "T"]) -> str:
    return (units.astype("<u4") + np.uint32(_BASE)).tobytes().decode("utf-32-le")


def _to_units(text: str) -> Int32[np.ndarray, "T"]:
    return (np.frombuffer(text.encode("utf-32-le"), "<i4") - _BASE).astype(np.int32)


def _check_range(what: str, values: Int[np.ndarray, "_"], size: int) -> None:
    wrong = (values < 0) | (values >= size)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(f"{what} {int(values[place])} at position {place} is not in 0..{size - 1}")
