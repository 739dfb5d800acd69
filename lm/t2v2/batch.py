"""How utterances become the batches of T2V2, and what an example costs.

What is random in an example, its masks, is drawn here, so that a run resumes anywhere.

Axes: B rows, T frames, S and R tokens of the two texts, M and H frames of masks, U utterances.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unitone.lm.data.fields import Record
from unitone.lm.data.mixture import Sizes
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.t2v2.model import UNKNOWN
from unitone.lm.t2v2.table import Kind, T2V2Task
from unitone.lm.tasks import CLASSES


@dataclass(frozen=True, kw_only=True)
class Example:
    """An utterance as ids of the blocks; what a task doesn't need is empty."""

    units: np.ndarray
    """(T,), each as often as the model has frames a unit."""
    text: np.ndarray
    """(S,)"""
    target: np.ndarray
    """(S,), the text in another language."""
    label: int
    """Class of the speech."""
    to: int
    language: int
    speaker: int
    masked: np.ndarray
    """(T,), True at the units that synthesis has to find."""
    hidden: np.ndarray
    """(T,), True at the frames of a draft that correction has to find."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Examples of one kind, padded with zeros."""

    units: Int[Tensor, "B T"]
    frames: Int[Tensor, "B"]
    text: Int[Tensor, "B S"]
    tokens: Int[Tensor, "B"]
    target: Int[Tensor, "B R"]
    target_tokens: Int[Tensor, "B"]
    label: Int[Tensor, "B"]
    to: Int[Tensor, "B"]
    language: Int[Tensor, "B"]
    speaker: Int[Tensor, "B"]
    masked: Bool[Tensor, "B M"]
    hidden: Bool[Tensor, "B H"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of a batch, by the number of their task; recognition and synthesis are one."""

    rows: dict[str, Rows]
    """``pair``, ``st``, ``mt``, and the names of the tasks that tell classes apart."""
    padding: float
    """Share of frames that hold nothing."""


@dataclass(frozen=True, kw_only=True)
class T2V2Batching:
    """A `unitone.lm.data.mixture.Batching`."""

    vocabulary: Vocabulary
    tasks: tuple[T2V2Task, ...]
    upsample: int
    """Frames a unit."""
    spread: int
    """Frames a token of a text that is translated."""
    longest: int
    """Frames of an utterance at the most."""
    drop: float = 0.0
    """Share of examples whose language isn't told, and of those whose speaker isn't."""
    capacity: int | None = None

    def fields(self, task: int) -> tuple[str, ...]:
        """Return the fields that an example has to have."""
        row = self.tasks[task]
        return ("units", "text") if row.kind == "pair" else row.fields

    def cost(self, task: int, sizes: Sizes) -> Int[np.ndarray, "U"]:
        """Return the frames; a pair passes through the model up to four times."""
        if self.tasks[task].kind == "mt":
            return self.spread * sizes("text")
        return self.upsample * sizes("units")

    def example(self, task: int, record: Record, generator: np.random.Generator) -> Example:
        """Return the ids and the masks of an example."""
        row = self.tasks[task]
        given = self.given(record, row.kind)
        count = self.spread * len(given.text) if row.kind == "mt" else len(given.units)
        masked = np.zeros(0, bool)
        if row.kind == "pair":  # each unit as a whole
            masked = masks(
                count // self.upsample, math.cos(generator.random() * math.pi / 2), generator
            )
            masked = masked.repeat(self.upsample)
        hidden = masks(count, generator.random(), generator)
        label = UNKNOWN
        if row.kind == "class":
            label = self._class(record, row.task.output)
        language, speaker = (
            one if generator.random() >= self.drop else UNKNOWN
            for one in (given.language, given.speaker)
        )
        return replace(
            given, masked=masked, hidden=hidden, label=label, language=language, speaker=speaker
        )

    def given(self, record: Record, kind: Kind) -> Example:
        """Return what a record has of the fields that a task may read."""
        none = np.zeros(0, np.int64)
        units = record.get("units") if kind != "mt" else None
        text = record.get("text") if kind in ("pair", "mt") else None
        target = record.get("translation") if kind in ("st", "mt") else None
        return Example(
            units=none if units is None else self._ids("unit", units).repeat(self.upsample),
            text=none if text is None else self._ids("text", text),
            target=none if target is None else self._ids("text", target),
            label=UNKNOWN,
            to=self._class(record, "to"),
            language=self._class(record, "language"),
            speaker=self._class(record, "speaker"),
            masked=np.zeros(0, bool),
            hidden=np.zeros(0, bool),
        )

    def _ids(self, block: str, tokens: np.ndarray) -> np.ndarray:
        return self.vocabulary.block(block).decode(np.asarray(tokens)).astype(np.int64)

    def _class(self, record: Record, field: str) -> int:
        labels = self.vocabulary.block(CLASSES[field]).labels
        label = record.get(field)
        return labels.index(label) if label in labels else UNKNOWN

    def collate(self, rows: Sequence[Sequence[tuple[int, Example]]]) -> Batch:
        """Lay the examples of each kind out as rows."""
        sorted_out: dict[str, list[Example]] = {}
        for row in rows:
            for number, example in row:
                task = self.tasks[number]
                name = task.name if task.kind == "class" else task.kind
                sorted_out.setdefault(name, []).append(example)
        made = {name: rows_of(examples) for name, examples in sorted_out.items()}
        held = [self._held(name, part) for name, part in made.items()]
        whole = sum(lengths.numel() * longest for lengths, longest in held)
        used = sum(int(lengths.sum()) for lengths, _ in held)
        return Batch(rows=made, padding=1 - used / max(whole, 1))

    def _held(self, name: str, part: Rows) -> tuple[Tensor, int]:
        lengths = part.tokens if name == "mt" else part.frames
        return lengths, int(lengths.max())


def masks(count: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return True at about ``share`` of ``count`` places, and at one at least."""
    drawn = generator.random(count) < share
    if count and not drawn.any():
        drawn[generator.integers(count)] = True
    return drawn


def rows_of(examples: Sequence[Example]) -> Rows:
    """Lay examples out as padded rows."""

    def padded(name: str) -> Tensor:
        values = [torch.from_numpy(getattr(one, name)) for one in examples]
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)

    def numbers(name: str) -> Tensor:
        return torch.tensor([getattr(one, name) for one in examples])

    def lengths(name: str) -> Tensor:
        return torch.tensor([len(getattr(one, name)) for one in examples])

    return Rows(
        units=padded("units"),
        frames=lengths("units"),
        text=padded("text"),
        tokens=lengths("text"),
        target=padded("target"),
        target_tokens=lengths("target"),
        label=numbers("label"),
        to=numbers("to"),
        language=numbers("language"),
        speaker=numbers("speaker"),
        masked=padded("masked"),
        hidden=padded("hidden"),
    )


def groups(costs: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Return the numbers of rows that go together, rows of like length, under a padded budget."""
    order = sorted(range(len(costs)), key=lambda one: (costs[one], one))
    found: list[list[int]] = []
    for number in order:
        if found and (len(found[-1]) + 1) * max(costs[number], 1) <= max_tokens:
            found[-1].append(number)
        else:
            found.append([number])
    return found
