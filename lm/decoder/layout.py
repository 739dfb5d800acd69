"""From a record and a row of the task table to the tokens of an example, and back to a prediction.

The only place where a template meets a vocabulary. Axes: U utterances, L positions of a sequence,
Q streams of tokens a position (1, or the levels of a codec), T frames, F width of a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32
from torch import Tensor

from unitone.errors import ConfigError
from unitone.lm.data.fields import Fields, Record
from unitone.lm.decoder.codes import Levels, widen
from unitone.lm.decoder.template import DecoderTask, Part
from unitone.lm.options import Pattern
from unitone.lm.predictor import Prediction
from unitone.lm.tasks import CLASSES, VECTORS


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


class PromptFormatter:
    """Puts the sequences of one model together."""

    def __init__(self, fields: Fields, *, pattern: Pattern = "delay") -> None:
        """Lay codec codes out in ``pattern``, see `unitone.lm.decoder.codes`."""
        if pattern not in ("delay", "flat"):
            raise ConfigError(f"a code pattern is delay or flat, got {pattern!r}")
        self.fields, self.vocabulary = fields, fields.vocabulary
        self.codes = Levels(blocks=fields.vocabulary.codes, pattern=pattern)

    def check(self, task: DecoderTask) -> None:
        """Refuse a task with tokens that the vocabulary has not.

        Raises:
            ConfigError: naming the token.
        """
        for part in task.parts:
            if part.kind == "token":
                self.vocabulary.id(part.name)
        self.allowed(task)
        self.levels(task)

    def lengths(
        self, task: DecoderTask, sizes: Callable[[str], Int[np.ndarray, "U"]]
    ) -> Int[np.ndarray, "U"]:
        """Return the lengths of examples; ``sizes`` has those of a field, in tokens or frames."""
        lengths = np.zeros(1, np.int64)
        beside = np.zeros(1, np.int64)  # positions that codes share with what follows
        for part in task.parts:
            many = part.kind == "field" and part.name not in (*CLASSES, *VECTORS)
            size = sizes(part.name) if many else np.ones(1, np.int64)
            if part.name == "prompt_units":
                size = np.minimum(size, task.prompt_tokens)
            if part.name == "codes":
                lengths = lengths + self.codes.length(size)
                beside = np.full_like(lengths, self.codes.tail if part.target else 0)
            else:
                beside = beside * part.target
                shared = np.minimum(beside, size)
                lengths = lengths + size - shared
                beside = beside - shared
        return lengths

    def example(self, task: DecoderTask, record: Record, *, null: bool = False) -> Example:
        """Return the whole sequence.

        With ``null`` every field of the condition that is a sequence shrinks to one ``<mask>``:
        what classifier-free guidance compares with (Ho & Salimans 2022, arXiv 2207.12598).
        """
        return self._join(task, task.parts, record, null=null)

    def prompt(
        self, task: DecoderTask, record: Record, *, prefix: int = 0, null: bool = False
    ) -> Example:
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

    def allowed(self, task: DecoderTask) -> Bool[Tensor, "V"]:
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

    def levels(self, task: DecoderTask) -> Levels | None:
        """Return how the codes lie that ``task`` generates; None where it generates none.

        Raises:
            ConfigError: it generates some levels only.
        """
        named = {name for name in task.emits if name.startswith("code")}
        missing = {block.name for block in self.codes.blocks} - named
        if named and missing and "code" not in named:
            raise ConfigError(
                f"task {task.name} emits {', '.join(sorted(named))} and not "
                f"{', '.join(sorted(missing))}: say code, for all levels"
            )
        return self.codes if named else None

    def size(self, task: DecoderTask, record: Record) -> int:
        """Return how much of the target can be given as ``prefix``: tokens, or frames of codes."""
        value = record[task.output]
        return int(value.shape[-1]) if isinstance(value, np.ndarray) else len(value)

    def given(
        self, task: DecoderTask, record: Record, tokens: np.ndarray, prefix: int
    ) -> tuple[int, ...]:
        """Return what `Hypothesis.tokens` leaves out of a target that begins with ``tokens``."""
        if task.output != "codes":
            return tuple(tokens.tolist())
        whole = prefix - self.codes.tail  # what has begun is generated to its end
        return tuple(record["codes"].T[:whole].reshape(-1).tolist()) if whole > 0 else ()

    def field(self, task: DecoderTask, tokens: Sequence[int]) -> Int32[np.ndarray, "..."]:
        """Return generated tokens as a record has the field that ``task`` is for."""
        if task.output == "codes":
            return self.codes.gather(tokens)
        return np.array(tokens, np.int32)

    def prediction(
        self,
        task: DecoderTask,
        tokens: Sequence[int],
        *,
        score: float = 0.0,
        truncated: bool = False,
    ) -> Prediction:
        """Return what generated tokens say; special tokens among them are dropped."""
        text = label = units = codes = None
        if task.output == "codes":
            codes = self.fields.codes_of(self.codes.gather(tokens))
        elif task.output == "units":
            units = self.fields.units_of(tokens)
        elif task.output in CLASSES:
            label = self.fields.label_of(task.output, tokens)
        else:
            text = self.fields.text_of(tokens)
        return Prediction(
            text=text, label=label, units=units, codes=codes, score=score, truncated=truncated
        )

    def _join(
        self, task: DecoderTask, parts: Sequence[Part], record: Record, *, null: bool
    ) -> Example:
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
                if part.name == "prompt_units":
                    piece = piece[: task.prompt_tokens]
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
