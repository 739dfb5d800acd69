"""From an utterance and a task to the tokens of an example, and back from tokens to text or units.

The only place where a template meets a vocabulary. Axes: L positions of a sequence, Q streams of
tokens a position (1, or the levels of a codec), T frames, F width of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32
from torch import Tensor

from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.codes import Levels, Pattern, widen
from unitone.lm.tasks import CLASSES, VECTORS, Part, Task
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.text.subwords import UnitSubwords
from unitone.tokenizers.text.text import TextTokenizer, load_text

Record = Mapping[str, Any]
"""The fields of an utterance as tokens, labels and vectors; `Composer.record` makes it."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sequence; without a target it is a prompt."""

    tokens: Int32[np.ndarray, "L"] | Int32[np.ndarray, "L Q"]
    """`unitone.lm.decoder.model.NONE` where a position has no token."""
    target: Bool[np.ndarray, "L"]
    """True at the tokens that are learnt."""
    vectors: dict[str, tuple[Float32[np.ndarray, "N F"], Bool[np.ndarray, "L"]]] = field(
        default_factory=dict
    )
    """By kind: vectors, and the positions they stand at."""

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a model has said, in the form the task is about."""

    text: str | None = None
    units: Int32[np.ndarray, "T"] | None = None
    codes: Int32[np.ndarray, "Q T"] | None = None
    label: str | None = None

    @property
    def spoken(self) -> Int32[np.ndarray, "..."] | None:
        """Units or codes, where it is speech."""
        return self.units if self.codes is None else self.codes


class Composer:
    """Puts sequences together over one vocabulary."""

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        text: TextTokenizer,
        pieces: UnitSubwords | None,
        pattern: Pattern = "delay",
    ) -> None:
        """Check that vocabulary and tokenizers belong together.

        ``pieces`` None is units as they are; ``pattern`` is how codec codes lie in a sequence, see
        `unitone.lm.decoder.codes`.
        """
        if pattern not in ("delay", "flat"):
            raise ConfigError(f"a code pattern is delay or flat, got {pattern!r}")
        for name, size in (("text", text.size), ("unit", pieces and pieces.num_subwords)):
            block = vocabulary.block(name)
            if size is not None and block.size not in (0, size):
                raise ConfigError(
                    f"the vocabulary has {block.size} {name} tokens, the tokenizer {size}: use the "
                    "tokenizer directory that lies beside the model"
                )
        self.vocabulary, self.text, self.pieces = vocabulary, text, pieces
        self.codes = Levels(blocks=vocabulary.codes, pattern=pattern)

    @classmethod
    def open(
        cls, tokenizer: Path, vocabulary: Vocabulary, *, pattern: Pattern = "delay"
    ) -> "Composer":
        """Read the text and unit models of a tokenizer directory.

        Raises:
            ConfigError: the vocabulary belongs to another tokenizer.
            CheckpointError: a model is missing or damaged.
        """
        passport = Passport.load(tokenizer)
        if vocabulary.passport is not None:
            vocabulary.require_passport(passport.hash, of=str(tokenizer))
        text = load_text(passport.text.kind, tokenizer)
        pieces = UnitSubwords.load(tokenizer / "units.model") if passport.unit_pieces else None
        return cls(vocabulary=vocabulary, text=text, pieces=pieces, pattern=pattern)

    def check(self, task: Task) -> None:
        """Refuse a task whose tokens the vocabulary lacks.

        Raises:
            ConfigError: naming the token.
        """
        for part in task.parts:
            if part.kind == "token":
                self.vocabulary.id(part.name)
        self.allowed(task)
        self.levels(task)

    def record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Turn what a shard or a manifest says of an utterance into tokens; what lacks is left out.

        Raises:
            CorpusError: text, units or codes are not of this vocabulary; the utterance is named.
        """
        record: dict[str, Any] = {"id": row["id"]}
        try:
            for name in ("units", "sample"):
                if row.get(name) is not None:
                    record[name] = self.unit_tokens(np.asarray(row[name], np.int32))
            if row.get("text"):
                record["text"] = self.text_tokens(row["text"])
            if row.get("codes") is not None and self.codes.blocks:
                record["codes"] = self.codes.encode(np.asarray(row["codes"]))
            record["translations"] = {
                language: self.text_tokens(text)
                for language, text in _translations(row.get("translation")).items()
            }
        except ValueError as error:
            raise CorpusError(f"{row['id']}: {error}") from error
        for name in ("language", "gender", "speaker"):
            if row.get(name) is not None:
                record[name] = row[name]
        for name in ("features", "voice"):
            if row.get(name) is not None:
                record[name] = np.asarray(row[name])
        return record

    def text_tokens(self, text: str) -> Int32[np.ndarray, "L"]:
        """Return the tokens of ``text``."""
        ids = np.asarray(self.text.encode(text), np.int32)
        return self.vocabulary.block("text").encode(ids)

    def unit_tokens(self, units: Int[np.ndarray, "T"]) -> Int32[np.ndarray, "L"]:
        """Return the tokens of units, deduplicated or not as the tokenizer has made them."""
        ids = units.astype(np.int32) if self.pieces is None else self.pieces.encode(units)
        return self.vocabulary.block("unit").encode(ids)

    def example(self, task: Task, record: Record, *, null: bool = False) -> Example:
        """Return the whole sequence.

        With ``null`` every field of the condition that is a sequence shrinks to one ``<mask>``:
        what classifier-free guidance compares with (Ho & Salimans 2022, arXiv 2207.12598).
        """
        return self._join(task, task.parts, record, null=null)

    def prompt(self, task: Task, record: Record, *, prefix: int = 0, null: bool = False) -> Example:
        """Return what stands before the target, and ``prefix`` tokens of the target.

        Of codes, ``prefix`` counts frames; with a delay, the last ones are there in part only.
        """
        made = self._join(task, task.prompt, record, null=null)
        if not prefix:
            return made
        whole = self.example(task, record, null=null)
        end = len(made) + (self.codes.begun(prefix) if task.output == "codes" else prefix)
        return Example(
            tokens=whole.tokens[:end],
            target=whole.target[:end],
            vectors={
                kind: (values, where[:end]) for kind, (values, where) in whole.vectors.items()
            },
        )

    def allowed(self, task: Task) -> Bool[Tensor, "V"]:
        """Return True at the tokens that may be generated."""
        names: list[str] = []
        for name in task.emits:
            blocks = self.vocabulary.codes if name == "code" else (self.vocabulary.block(name),)
            if not any(block.size for block in blocks):
                raise ConfigError(
                    f"task {task.name} emits {name}, of which the vocabulary has none"
                )
            names += [block.name for block in blocks]
        return self.vocabulary.allowed(*names, "<eos>")

    def levels(self, task: Task) -> Levels | None:
        """Return how the codes lie that ``task`` generates; None where it generates none.

        Raises:
            ConfigError: it generates some levels only.
        """
        named = {name for name in task.emits if name.startswith("code")}
        lacking = {block.name for block in self.codes.blocks} - named
        if named and lacking and "code" not in named:
            raise ConfigError(
                f"task {task.name} emits {', '.join(sorted(named))} and not "
                f"{', '.join(sorted(lacking))}: say code, for all levels"
            )
        return self.codes if named else None

    def size(self, task: Task, record: Record) -> int:
        """Return how much of the target can be given as ``prefix``: tokens, or frames of codes."""
        value = record[task.output]
        return int(value.shape[-1]) if isinstance(value, np.ndarray) else len(value)

    def given(self, task: Task, record: Record, tokens: np.ndarray, prefix: int) -> tuple[int, ...]:
        """Return what `Hypothesis.tokens` lacks of a target that begins with ``tokens``."""
        if task.output != "codes":
            return tuple(tokens.tolist())
        whole = prefix - self.codes.tail  # what has begun is generated to its end
        return tuple(record["codes"].T[:whole].reshape(-1).tolist()) if whole > 0 else ()

    def field(self, task: Task, tokens: Sequence[int]) -> Int32[np.ndarray, "..."]:
        """Return generated tokens as a record has the field that ``task`` is for."""
        if task.output == "codes":
            return self.codes.gather(tokens)
        return np.array(tokens, np.int32)

    def output(self, task: Task, tokens: Sequence[int]) -> Output:
        """Return what generated tokens say; special tokens among them are dropped."""
        if task.output == "codes":
            return Output(codes=self.codes.decode(self.codes.gather(tokens)))
        named = [(self.vocabulary.block_of(token), token) for token in tokens]

        def of(block: str) -> list[int]:
            return [token for name, token in named if name == block]

        if task.output == "units":
            ids = np.asarray(self.vocabulary.block("unit").decode(of("unit")), np.int32)
            return Output(units=ids if self.pieces is None else self.pieces.decode(ids))
        if task.output in CLASSES:
            labels = of(CLASSES[task.output])
            block = self.vocabulary.block(CLASSES[task.output])
            return Output(label=block.labels[labels[0] - block.start] if labels else None)
        return Output(text=self.text.decode(self.vocabulary.block("text").decode(of("text"))))

    def _join(self, task: Task, parts: Sequence[Part], record: Record, *, null: bool) -> Example:
        pieces: list[np.ndarray] = []
        target: list[np.ndarray] = []
        vectors: dict[str, tuple[list[np.ndarray], list[int]]] = {}
        length = 0
        beside = np.zeros(0, np.int32)  # cells of level 0 that codes have left free
        for part in parts:
            dropped = null and part.kind == "field" and not part.target
            if dropped and part.name not in (*CLASSES, *VECTORS):
                piece = np.array([self.vocabulary.id("<mask>")], np.int32)
            elif part.kind == "field" and part.name in ("features", "voice"):
                values = np.atleast_2d(np.asarray(record[part.name], np.float32))
                piece = np.full(len(values), self.vocabulary.pad_id, np.int32)
                found = vectors.setdefault(part.name, ([], []))
                found[0].append(values)
                found[1].extend(range(length, length + len(values)))
            else:
                piece = self._piece(part, record)
                if part.name == "sample":
                    piece = piece[: task.sample_tokens]
            if part.target and piece.ndim == 1:
                count = min(len(beside), len(piece))
                beside[:count] = piece[:count]  # else nothing would tell the end of level 0
                beside, piece = beside[count:], piece[count:]
            else:
                beside = piece[len(piece) - self.codes.tail :, 0] if part.target else beside[:0]
            pieces.append(piece)
            target.append(np.full(len(piece), part.target))
            length += len(piece)
        placed = {
            kind: (np.concatenate(values), np.isin(np.arange(length), places))
            for kind, (values, places) in vectors.items()
        }
        return Example(tokens=_stack(pieces), target=np.concatenate(target), vectors=placed)

    def _piece(self, part: Part, record: Record) -> np.ndarray:
        if part.kind == "token":
            return np.array([self.vocabulary.id(part.name)], np.int32)
        if part.name in CLASSES:
            token = self.vocabulary.id(f"<{CLASSES[part.name]}:{record[part.name]}>")
            return np.array([token], np.int32)
        if part.name == "codes":
            return self.codes.lay(record["codes"])
        return np.asarray(record[part.name], np.int32)


def _stack(pieces: Sequence[np.ndarray]) -> np.ndarray:
    streams = max((piece.shape[1] for piece in pieces if piece.ndim == 2), default=1)
    return np.concatenate([widen(piece, streams) for piece in pieces]).astype(np.int32)


def _translations(value: Any) -> dict[str, str]:
    if not value:
        return {}
    if isinstance(value, Mapping):
        return {str(language): text for language, text in value.items() if text}
    return {item["language"]: item["text"] for item in value if item["text"]}
