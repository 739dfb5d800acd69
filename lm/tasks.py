"""The task table: a task is one row, and adding a task is adding a row.

A row's template is the sequence as the model sees it, in tokens and fields:

    <bos> <task:asr> {units} <sep> [ {text} <eos> ]

``<…>`` is a token of the vocabulary, ``{…}`` a field of the utterance, and the loss falls on what
stands between square brackets, the target. A prompt is what stands before the first bracket; a
field of the target may be given in part (``prefix``), as in speech continuation.

Fields: ``{units}``, ``{features}`` and ``{codes}`` are speech, as unit tokens, as vectors,
as codes of a codec; ``{text}`` is the transcript; ``{translation}`` and ``{to}`` are the text in
and the token of another language; ``{language}``, ``{gender}`` and ``{speaker}`` are class tokens;
``{voice}`` is a speaker vector and ``{sample}`` another utterance of the speaker, as units, of
which the first ``sample_tokens`` are taken.

The layouts of VoxtLM (arXiv 2309.07937) and PolySpeech (arXiv 2406.07801) are tables like ours.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unitone.config import from_dict
from unitone.errors import ConfigError

SEQUENCES = ("units", "features", "codes", "text", "translation", "sample")
"""Fields of any length."""
CLASSES = {"language": "language", "gender": "gender", "speaker": "speaker", "to": "language"}
"""Fields of one token, and the vocabulary's block it is from."""
VECTORS = ("voice",)
"""Fields of one position that is no token."""

Metric = Literal["wer", "bleu", "accuracy", "units"]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a task's target is generated unless the user says otherwise."""

    beam: int = 1
    """Hypotheses kept; 1 is greedy or, with ``temperature``, sampling."""
    length_penalty: float = 1.0
    """Exponent of the length that a finished hypothesis' score is divided by."""
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn."""
    top_k: int = 0
    """Draw from the k likeliest; 0 is all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that hold this much probability."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that were emitted before (CTRL, arXiv 1909.05858)."""
    no_repeat: int = 0
    """Forbid a run of this many tokens to come back; 0 allows it."""
    guidance: float = 1.0
    """Classifier-free guidance: null + guidance * (conditioned - null); 1 is without."""
    candidates: int = 1
    """Drawn for each prompt, of which the task's ``check`` chooses; needs ``temperature``."""
    max_tokens: int = 256
    """Hard cap on new tokens; a hypothesis that meets it is marked as truncated."""
    max_ratio: float = 0.0
    """Cap of new tokens per token of the prompt, plus 10; 0 leaves only ``max_tokens``."""
    min_tokens: int = 0
    """End of sequence is forbidden before."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One item of a template."""

    kind: Literal["token", "field"]
    name: str
    """``<bos>``; ``units``."""
    target: bool
    """Whether it is learnt and, in decoding, generated."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table."""

    name: str
    template: str
    emits: tuple[str, ...]
    """Blocks of the vocabulary that may be generated, ``code`` being those of all levels of a
    codec; ``<eos>`` always may."""
    metric: Metric
    weight: float = 1.0
    """Share of the examples, beside those of the other tasks, where mixing is by hand."""
    decoding: Decoding = field(default_factory=Decoding)
    check: str | None = None
    """The task that reads this one's output back: of several candidates, the one is taken that it
    finds the input likeliest for. Synthesis is checked by recognition."""
    sample_tokens: int = 150
    """Unit tokens of ``{sample}`` at the most; what is longer is cut."""

    def __post_init__(self) -> None:
        parts = self.parts
        if not any(part.target for part in parts):
            raise ConfigError(f"task {self.name}: the template marks no target with [ ]")
        if parts[0].target:
            raise ConfigError(f"task {self.name}: something must stand before the target")
        if self.sample_tokens < 1:
            raise ConfigError(
                f"task {self.name}: sample_tokens must be 1 or more, got {self.sample_tokens}"
            )

    @property
    def parts(self) -> tuple[Part, ...]:
        """The template's items in order.

        Raises:
            ConfigError: an item is neither a token, nor a field, nor a bracket.
        """
        return _parse(self.name, self.template)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields, each once, in order."""
        return tuple(dict.fromkeys(part.name for part in self.parts if part.kind == "field"))

    @property
    def prompt(self) -> tuple[Part, ...]:
        """The items before the first target."""
        parts = self.parts
        return parts[: next(number for number, part in enumerate(parts) if part.target)]

    @property
    def output(self) -> str:
        """The last field of the target: what the task is for."""
        return [part.name for part in self.parts if part.target and part.kind == "field"][-1]


def _parse(name: str, template: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    target = False
    for word in template.split():
        if word in "[]":
            if target == (word == "["):
                raise ConfigError(f"task {name}: {word} without its partner in {template!r}")
            target = not target
        elif re.fullmatch(r"<[^<>]+>", word):
            parts.append(Part(kind="token", name=word, target=target))
        elif word[:1] == "{" and word[1:-1] in (*SEQUENCES, *CLASSES, *VECTORS):
            parts.append(Part(kind="field", name=word[1:-1], target=target))
        else:
            known = ", ".join(f"{{{one}}}" for one in (*SEQUENCES, *CLASSES, *VECTORS))
            raise ConfigError(f"task {name}: {word!r} is neither <a token> nor one of {known}")
    if target:
        raise ConfigError(f"task {name}: [ without ] in {template!r}")
    return tuple(parts)


_SPEECH = Decoding(max_tokens=1000)
_CLASS = Decoding(max_tokens=2, min_tokens=1)

TASKS: tuple[Task, ...] = (
    Task(
        name="asr",
        template="<bos> <task:asr> {units} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        weight=5.0,
    ),
    Task(
        name="tts",
        template="<bos> <task:tts> {language} {speaker} {text} <sep> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        weight=12.0,
        decoding=Decoding(max_tokens=1000, max_ratio=15.0),
        check="asr",
    ),
    Task(
        name="st",
        template="<bos> <task:st> {to} {units} <sep> [ {translation} <eos> ]",
        emits=("text",),
        metric="bleu",
        weight=3.0,
    ),
    Task(
        name="mt",
        template="<bos> <task:mt> {to} {text} <sep> [ {translation} <eos> ]",
        emits=("text",),
        metric="bleu",
        weight=2.0,
    ),
    Task(
        name="lid",
        template="<bos> <task:lid> {units} <sep> [ {language} <eos> ]",
        emits=("language",),
        metric="accuracy",
        weight=0.2,
        decoding=_CLASS,
    ),
    Task(
        name="gid",
        template="<bos> <task:gid> {units} <sep> [ {gender} <eos> ]",
        emits=("gender",),
        metric="accuracy",
        weight=0.2,
        decoding=_CLASS,
    ),
    Task(
        name="continue",
        template="<bos> <task:continue> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        weight=0.2,
        decoding=Decoding(temperature=0.8, top_p=0.95, max_tokens=1000),
    ),
)
"""Unitone's own layout. The weights go by what a task takes to learn: where speech is to be
understood, an alignment has to be found; an identification is learnt by the way."""

VOXTLM: tuple[Task, ...] = (
    Task(
        name="asr",
        template="<startofspeech> {units} <generatetext> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        decoding=Decoding(beam=15),
    ),
    Task(
        name="tts",
        template="<startoftext> {text} <generatespeech> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        decoding=Decoding(beam=5, max_tokens=300, min_tokens=1),
    ),
    Task(
        name="textlm",
        template="<generatetext> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        decoding=Decoding(temperature=0.8),
    ),
    Task(
        name="continue",
        template="<generatespeech> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        decoding=Decoding(temperature=0.8, max_tokens=1000),
    ),
)
"""VoxtLM's four symbols; no <bos>, and the mixture is the data's own."""

POLYSPEECH: tuple[Task, ...] = (
    Task(
        name="asr",
        template="<task:asr> {features} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
    ),
    Task(
        name="tts",
        template="<task:tts> {text} <sep> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        decoding=_SPEECH,
    ),
    Task(
        name="lid",
        template="<task:lid> {features} <sep> [ {language} <eos> ]",
        emits=("language",),
        metric="accuracy",
        decoding=_CLASS,
    ),
    Task(
        name="gid",
        template="<task:gid> {features} <sep> [ {gender} <eos> ]",
        emits=("gender",),
        metric="accuracy",
        decoding=_CLASS,
    ),
)
"""PolySpeech's four tasks: continuous speech in, tokens out, a task embedding in front."""

_CODES = Decoding(temperature=0.8, top_p=0.95, max_tokens=2000)

CODES: tuple[Task, ...] = (
    Task(
        name="asr",
        template="<bos> <task:asr> {codes} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        weight=5.0,
    ),
    Task(
        name="tts",
        template="<bos> <task:tts> {language} {speaker} {text} <sep> [ {codes} <eos> ]",
        emits=("code",),
        metric="units",
        weight=12.0,
        decoding=_CODES,
        check="asr",
    ),
    Task(
        name="continue",
        template="<bos> <task:continue> [ {codes} <eos> ]",
        emits=("code",),
        metric="units",
        weight=0.2,
        decoding=_CODES,
    ),
)
"""Speech as the codes of a neural codec instead of units; ``code`` emits those of all levels."""

TABLES: dict[str, tuple[Task, ...]] = {
    "unitone": TASKS,
    "voxtlm": VOXTLM,
    "polyspeech": POLYSPEECH,
    "codes": CODES,
}


def read(path: Path) -> tuple[Task, ...]:
    """Read rows from a JSON file, a list of objects with the fields of `Task`.

    Raises:
        ConfigError: it isn't there, or a row can't work; the field is named.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--rows {path}: no JSON file that can be read ({error})") from error
    if not isinstance(values, list):
        raise ConfigError(f"--rows {path}: expected a list of rows, got {type(values).__name__}")
    return tuple(from_dict(Task, row, where=f"{path}: row {n}") for n, row in enumerate(values))


def extended(table: Sequence[Task], rows: Sequence[Task]) -> tuple[Task, ...]:
    """Return the table with rows more; one takes the place of a row with its name."""
    new = {row.name: row for row in rows}
    kept = [new.pop(task.name, task) for task in table]
    return (*kept, *new.values())


def select(table: Sequence[Task], names: Iterable[str]) -> tuple[Task, ...]:
    """Return the rows with these names, in the table's order.

    Raises:
        ConfigError: there is no such row.
    """
    wanted = list(names)
    known = [task.name for task in table]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no task {name!r}; the table has {', '.join(known)}")
    return tuple(task for task in table if task.name in wanted)
