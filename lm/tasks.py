"""What a task is, whichever model family does it: what is given, what comes out, how it is judged.

How a task becomes a sequence, what may be generated and how it is searched belong to the family
(`unitone.lm.decoder.template` for the decoder-only model).

Fields: ``units``, ``features`` and ``codes`` are speech, as unit tokens, as vectors, as codes of a
codec; ``text`` is the transcript; ``translation`` and ``to`` are the text in and the token of
another language; ``language``, ``gender`` and ``speaker`` are class tokens; ``voice`` is a speaker
embedding and ``prompt_units`` another utterance of the speaker, as units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from unitone.errors import ConfigError

SPEECH = ("units", "features", "codes")
"""Fields that are made from the recording."""
SEQUENCES = (*SPEECH, "text", "translation", "prompt_units")
"""Fields of any length."""
CLASSES = {"language": "language", "gender": "gender", "speaker": "speaker", "to": "language"}
"""Fields of one token, and the vocabulary's block it is from."""
VECTORS = ("voice",)
"""Fields of one position that is no token."""

Metric = Literal["wer", "bleu", "accuracy", "units"]
"""How validation judges an output; of ``units`` it looks at the loss only."""
HIGHER_IS_BETTER = frozenset({"bleu", "accuracy"})
"""Of the metrics."""


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    """``asr``, ``tts``, ``st``, ``mt``, ``lid``, …"""
    inputs: tuple[str, ...]
    """Fields that are given."""
    output: str
    """Field that the task is for."""
    metric: Metric
    weight: float = 1.0
    """Share of the examples, beside those of the other tasks, where mixing is by hand."""
    rerank: str | None = None
    """The inverse task: of several candidates, the one is taken that it finds the input likeliest
    for. Synthesis is reranked by recognition."""

    optional: tuple[str, ...] = ()
    """Fields that are read where an utterance has them."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The inputs and the output, each once."""
        return tuple(dict.fromkeys((*self.inputs, self.output)))


@runtime_checkable
class Named(Protocol):
    """A task, or a family's row for one."""

    @property
    def name(self) -> str:
        """Of the task."""
        ...


AnyTask = TypeVar("AnyTask", bound=Named)


def select(table: Sequence[AnyTask], names: Iterable[str]) -> tuple[AnyTask, ...]:
    """Return the tasks with these names, in the table's order.

    Raises:
        ConfigError: there is no such task.
    """
    wanted = list(names)
    known = [task.name for task in table]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no task {name!r}; the table has {', '.join(known)}")
    return tuple(task for task in table if task.name in wanted)
