"""Text as token ids, three ways with one interface; ``load_text`` opens any of them.

- ``bytes``: UTF-8, 256 ids, no model and no unknown text.
- ``characters``: one id a code point of the training text; id 0 is ``<unk>``.
- ``sentencepiece``: a unigram model (Kudo 2018, arXiv 1804.10959) with byte fallback, so that no
  text is unknown. Identity normalization: what goes in comes out, white space included;
  lower-casing and Unicode normalization are the corpus reader's work.

The kind is a field of the tokenizer's passport; ``text.model`` is a JSON list for ``characters``, a
SentencePiece model for ``sentencepiece`` and absent for ``bytes``.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import sentencepiece

from unitone import files
from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.text import unigram

TextKind = Literal["bytes", "characters", "sentencepiece"]

MODEL_NAME = "text.model"
UNKNOWN = "<unk>"

# SentencePiece writes a space as U+2581 and reads U+2581 back as a space. To keep the character
# itself, it travels as this private escape and a letter; so does the escape.
_ESCAPE = "\U0010fffd"
_TO_ESCAPED = str.maketrans({"\u2581": f"{_ESCAPE}s", _ESCAPE: f"{_ESCAPE}e"})
_FROM_ESCAPED = {f"{_ESCAPE}s": "\u2581", f"{_ESCAPE}e": _ESCAPE}
_ESCAPED = re.compile(f"{_ESCAPE}[se]")

_LONGEST_LINE = 1_000_000
"""Bytes; SentencePiece leaves out longer training lines (its own default, 4192, is short)."""


@runtime_checkable
class TextTokenizer(Protocol):
    """Text to ids in 0..size-1 and back."""

    kind: TextKind
    """Which of the three this is."""
    size: int
    """Number of ids."""
    hash: str
    """SHA-256 of what ``save`` writes (of the kind's name where it writes nothing)."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; bytes that are no UTF-8, as a model may emit, become U+FFFD."""
        ...

    def save(self, directory: Path) -> None:
        """Write ``text.model`` into ``directory``, where the kind has one."""
        ...


class ByteText:
    """The bytes of UTF-8: id = byte."""

    kind: TextKind = "bytes"
    size = 256
    hash = hashlib.sha256(b"bytes").hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the bytes of ``text``."""
        return list(_utf8(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the bytes."""
        _check_ids("text byte", ids, self.size)
        return bytes(ids).decode("utf-8", errors="replace")

    def save(self, directory: Path) -> None:
        """Write nothing: there is no model."""


class CharacterText:
    """One id for each code point that the training text has."""

    kind: TextKind = "characters"

    def __init__(
        self, characters: Sequence[str], *, unknown: Literal["error", "unk"] = "error"
    ) -> None:
        """Give ids 1, 2, … to ``characters``; ``unknown`` says what to do with any other."""
        self._symbols = (UNKNOWN, *characters)
        self._ids = {character: number for number, character in enumerate(self._symbols)}
        if len(self._ids) != len(self._symbols) or any(len(one) != 1 for one in characters):
            raise CheckpointError("a character inventory holds different single characters only")
        self._unknown = unknown
        self.size = len(self._symbols)
        self.hash = hashlib.sha256(self._content().encode()).hexdigest()

    @classmethod
    def train(
        cls, lines: Iterable[str], *, unknown: Literal["error", "unk"] = "error"
    ) -> "CharacterText":
        """Collect the characters of ``lines``, in code point order."""
        seen: set[str] = set()
        for line in lines:
            seen.update(line)
        if not seen:
            raise ConfigError("no text to collect characters from: every line is empty")
        return cls(sorted(seen), unknown=unknown)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters.

        Raises:
            ConfigError: a character was not in the training text and ``unknown`` is ``error``.
        """
        if self._unknown == "unk":
            return [self._ids.get(character, 0) for character in text]
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = str(error.args[0])
            raise ConfigError(
                f"character {character!r} (U+{ord(character):04X}) is not among the "
                f"{self.size - 1} of the text tokenizer: clean the text, or map it to {UNKNOWN}"
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; ``<unk>`` becomes U+FFFD."""
        _check_ids("character", ids, self.size)
        return "".join(self._symbols[number] if number else "\ufffd" for number in ids)

    def save(self, directory: Path) -> None:
        """Write the JSON list of the symbols, ``<unk>`` first."""
        files.write_text(directory / MODEL_NAME, self._content())

    def _content(self) -> str:
        return json.dumps(self._symbols, ensure_ascii=True, indent=0) + "\n"


class SentencePieceText:
    """Subwords with byte fallback."""

    kind: TextKind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        """Read a serialized model, ours or another with byte fallback."""
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise CheckpointError(f"not a SentencePiece model: {error}") from error
        self._model = model
        self.size = int(self._processor.vocab_size())
        self.hash = hashlib.sha256(model).hexdigest()

    @classmethod
    def train(cls, lines: Iterable[str], *, size: int) -> "SentencePieceText":
        """Learn ``size`` subwords, the 256 byte pieces and ``<unk>`` among them.

        The result depends on the arguments alone. A line is one sentence; line breaks in it count
        as spaces.

        Raises:
            ConfigError: the text is too small, or has too many characters, for ``size``.
        """
        sentences = [" ".join(line.translate(_TO_ESCAPED).splitlines()) for line in lines]
        if not any(sentences):
            raise ConfigError(f"cannot learn {size} text subwords: no utterance has a text")
        try:
            model = unigram.fit(
                (line for line in sentences if line),
                size=size,
                character_coverage=0.9995,  # the rest falls back to bytes
                byte_fallback=True,
                max_sentence_length=_LONGEST_LINE,
            )
        except RuntimeError as error:
            raise ConfigError(f"cannot learn {size} text subwords: {_reason(error)}") from error
        made = cls(model)
        if made.size < size:
            raise ConfigError(
                f"the text holds only {made.size} subwords, {size} were asked for: "
                f"give more text or ask for at most {made.size}"
            )
        return made

    def encode(self, text: str) -> list[int]:
        """Return the most probable subwords."""
        _utf8(text)
        return list(map(int, self._processor.encode(text.translate(_TO_ESCAPED))))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the subwords."""
        _check_ids("text piece", ids, self.size)
        text = str(self._processor.decode(list(ids)))
        return _ESCAPED.sub(lambda found: _FROM_ESCAPED[found[0]], text)

    def save(self, directory: Path) -> None:
        """Write the SentencePiece model."""
        with files.replacing(directory / MODEL_NAME) as temporary:
            temporary.write_bytes(self._model)


def _reason(error: RuntimeError) -> str:
    """Return what SentencePiece says, without the options of its own command line."""
    reason = str(error).rsplit("] ", 1)[-1]
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", reason)
    if needed:
        return f"the bytes and characters alone are {needed[1]}; ask for more"
    most = re.search(r"set it to a value <= (\d+)", reason)
    return f"the text holds at most {most[1]}; ask for fewer or give more text" if most else reason


def train_text(kind: TextKind, lines: Iterable[str], *, size: int | None = None) -> TextTokenizer:
    """Make the tokenizer of ``kind`` from a corpus; only ``sentencepiece`` needs a ``size``."""
    if kind == "sentencepiece":
        if size is None:
            raise ConfigError("a sentencepiece text tokenizer needs its number of subwords")
        return SentencePieceText.train(lines, size=size)
    if size is not None:
        raise ConfigError(f"the size of a {kind} text tokenizer cannot be chosen, got {size}")
    return ByteText() if kind == "bytes" else CharacterText.train(lines)


def load_text(
    kind: str, directory: Path | str, *, unknown: Literal["error", "unk"] = "error"
) -> TextTokenizer:
    """Open the text tokenizer of a tokenizer directory, of the kind that its passport names.

    Raises:
        CheckpointError: ``text.model`` is missing or of another kind.
        ConfigError: there is no such kind.
    """
    path = Path(directory) / MODEL_NAME
    if kind == "bytes":
        return ByteText()
    try:
        if kind == "characters":
            symbols = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(symbols, list) or symbols[:1] != [UNKNOWN]:
                raise CheckpointError(f"not a list of characters that starts with {UNKNOWN}")
            return CharacterText([str(symbol) for symbol in symbols[1:]], unknown=unknown)
        if kind == "sentencepiece":
            return SentencePieceText(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing, though the text kind is {kind}") from error
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{path}: not a {kind} text model: {error}") from error
    raise ConfigError(f"text kind must be bytes, characters or sentencepiece, got {kind!r}")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = text[error.start]
        raise ValueError(f"lone surrogate U+{ord(lone):04X} at {error.start} is no text") from error


def _check_ids(what: str, ids: Sequence[int], size: int) -> None:
    if len(ids) and (min(ids) < 0 or max(ids) >= size):
        wrong = next(number for number in ids if not 0 <= number < size)
        raise ValueError(f"{what} {wrong} is not in 0..{size - 1}")
