"""The decoder-only model's task table: a task is one row, and adding a task is adding a row.

A row's template is the sequence as the model sees it, in tokens and fields:

    <bos> <task:asr> {units} <sep> [ {text} <eos> ]

``<…>`` is a token of the vocabulary, ``{…}`` a field of the utterance (`unitone.lm.tasks`), and the
loss falls on what stands between square brackets, the target. A prompt is what stands before the
first bracket; a field of the target may be given in part (``prefix``), as in speech continuation.

The layouts of VoxtLM (arXiv 2309.07937) and PolySpeech (arXiv 2406.07801) are tables like ours.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unitone import files
from unitone.config import from_dict, to_dict
from unitone.errors import CheckpointError, ConfigError
from unitone.lm.tasks import CLASSES, SEQUENCES, VECTORS, Metric, Task

FORMAT_1 = {"check": "rerank", "sample_tokens": "prompt_tokens"}
"""Fields of a row, by the names they had in model directories of format 1."""


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
    """Drawn for each prompt, of which the task's ``rerank`` chooses; needs ``temperature``."""
    max_tokens: int = 256
    """Hard cap on new tokens; a hypothesis that reaches it is marked as truncated."""
    max_ratio: float = 0.0
    """Cap of new tokens per token of the prompt, plus 10; 0 leaves only ``max_tokens``."""
    min_tokens: int = 0
    """End of sequence is forbidden before."""


def check(decoding: Decoding) -> None:
    """Refuse settings that can't work together, or at all.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in to_dict(decoding).items():
        if not math.isfinite(value):
            raise ConfigError(f"decoding: {name} must be a finite number, got {value}")
    least = {
        "beam": 1, "temperature": 0, "top_k": 0, "no_repeat": 0, "max_tokens": 1, "max_ratio": 0,
        "min_tokens": 0, "candidates": 1,
    }  # fmt: skip
    for name, bound in least.items():
        value = getattr(decoding, name)
        if value < bound:
            raise ConfigError(f"decoding: {name} must be {bound} or more, got {value}")
    if not 0 < decoding.top_p <= 1:
        raise ConfigError(f"decoding: top_p must be above 0 and at most 1, got {decoding.top_p}")
    if not decoding.repetition_penalty > 0:
        raise ConfigError(
            f"decoding: repetition_penalty must be above 0, got {decoding.repetition_penalty}"
        )
    if decoding.beam > 1 and decoding.temperature > 0:
        raise ConfigError("decoding: beam search doesn't draw; use beam 1 or temperature 0")
    if decoding.temperature == 0 and (decoding.top_k or decoding.top_p < 1):
        raise ConfigError("decoding: top_k and top_p need a temperature above 0")
    if decoding.candidates > 1 and decoding.temperature == 0:
        raise ConfigError("decoding: candidates are drawn; give a temperature above 0")
    if decoding.min_tokens > decoding.max_tokens:
        raise ConfigError(
            f"decoding: min_tokens {decoding.min_tokens} is more than max_tokens "
            f"{decoding.max_tokens}"
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One item of a template."""

    kind: Literal["token", "field"]
    name: str
    """``<bos>``; ``units``."""
    target: bool
    """Whether it is learnt and, in decoding, generated."""


@dataclass(frozen=True, kw_only=True)
class DecoderTask:
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
    rerank: str | None = None
    """The inverse task, which chooses among candidates."""
    prompt_tokens: int = 150
    """Unit tokens of ``{prompt_units}`` at the most; what is longer is cut."""

    def __post_init__(self) -> None:
        parts = self.parts
        if not any(part.target for part in parts):
            raise ConfigError(f"task {self.name}: the template marks no target with [ ]")
        if parts[0].target:
            raise ConfigError(f"task {self.name}: something must stand before the target")
        if self.prompt_tokens < 1:
            raise ConfigError(
                f"task {self.name}: prompt_tokens must be 1 or more, got {self.prompt_tokens}"
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
        return _fields(self.parts)

    @property
    def prompt(self) -> tuple[Part, ...]:
        """The items before the first target."""
        parts = self.parts
        return parts[: next(number for number, part in enumerate(parts) if part.target)]

    @property
    def task(self) -> Task:
        """What the row is a layout of."""
        return Task(
            name=self.name,
            inputs=self.needs,
            output=self.output,
            metric=self.metric,
            weight=self.weight,
            rerank=self.rerank,
        )

    @property
    def output(self) -> str:
        """The last field of the target: what the task is for."""
        return [part.name for part in self.parts if part.target and part.kind == "field"][-1]

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of the prompt, each once."""
        return _fields(self.prompt)


def _fields(parts: Sequence[Part]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.name for part in parts if part.kind == "field"))


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

TASKS: tuple[DecoderTask, ...] = (
    DecoderTask(
        name="asr",
        template="<bos> <task:asr> {units} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        weight=5.0,
    ),
    DecoderTask(
        name="tts",
        template="<bos> <task:tts> {language} {speaker} {text} <sep> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        weight=12.0,
        decoding=Decoding(max_tokens=1000, max_ratio=15.0),
        rerank="asr",
    ),
    DecoderTask(
        name="st",
        template="<bos> <task:st> {to} {units} <sep> [ {translation} <eos> ]",
        emits=("text",),
        metric="bleu",
        weight=3.0,
    ),
    DecoderTask(
        name="mt",
        template="<bos> <task:mt> {to} {text} <sep> [ {translation} <eos> ]",
        emits=("text",),
        metric="bleu",
        weight=2.0,
    ),
    DecoderTask(
        name="lid",
        template="<bos> <task:lid> {units} <sep> [ {language} <eos> ]",
        emits=("language",),
        metric="accuracy",
        weight=0.2,
        decoding=_CLASS,
    ),
    DecoderTask(
        name="gid",
        template="<bos> <task:gid> {units} <sep> [ {gender} <eos> ]",
        emits=("gender",),
        metric="accuracy",
        weight=0.2,
        decoding=_CLASS,
    ),
    DecoderTask(
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

VOXTLM: tuple[DecoderTask, ...] = (
    DecoderTask(
        name="asr",
        template="<startofspeech> {units} <generatetext> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        decoding=Decoding(beam=15),
    ),
    DecoderTask(
        name="tts",
        template="<startoftext> {text} <generatespeech> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        decoding=Decoding(beam=5, max_tokens=300, min_tokens=1),
    ),
    DecoderTask(
        name="textlm",
        template="<generatetext> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        decoding=Decoding(temperature=0.8),
    ),
    DecoderTask(
        name="continue",
        template="<generatespeech> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        decoding=Decoding(temperature=0.8, max_tokens=1000),
    ),
)
"""VoxtLM's four symbols; no <bos>, and the mixture is the data's own."""

POLYSPEECH: tuple[DecoderTask, ...] = (
    DecoderTask(
        name="asr",
        template="<task:asr> {features} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
    ),
    DecoderTask(
        name="tts",
        template="<task:tts> {text} <sep> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        decoding=_SPEECH,
    ),
    DecoderTask(
        name="lid",
        template="<task:lid> {features} <sep> [ {language} <eos> ]",
        emits=("language",),
        metric="accuracy",
        decoding=_CLASS,
    ),
    DecoderTask(
        name="gid",
        template="<task:gid> {features} <sep> [ {gender} <eos> ]",
        emits=("gender",),
        metric="accuracy",
        decoding=_CLASS,
    ),
)
"""PolySpeech's four tasks: continuous speech in, tokens out, a task embedding in front."""

_CODES = Decoding(temperature=0.8, top_p=0.95, max_tokens=2000)

CODES: tuple[DecoderTask, ...] = (
    DecoderTask(
        name="asr",
        template="<bos> <task:asr> {codes} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
        weight=5.0,
    ),
    DecoderTask(
        name="tts",
        template="<bos> <task:tts> {language} {speaker} {text} <sep> [ {codes} <eos> ]",
        emits=("code",),
        metric="units",
        weight=12.0,
        decoding=_CODES,
        rerank="asr",
    ),
    DecoderTask(
        name="continue",
        template="<bos> <task:continue> [ {codes} <eos> ]",
        emits=("code",),
        metric="units",
        weight=0.2,
        decoding=_CODES,
    ),
)
"""Speech as the codes of a neural codec instead of units; ``code`` emits those of all levels."""

TABLES: dict[str, tuple[DecoderTask, ...]] = {
    "unitone": TASKS,
    "voxtlm": VOXTLM,
    "polyspeech": POLYSPEECH,
    "codes": CODES,
}


def read(path: Path) -> tuple[DecoderTask, ...]:
    """Read rows from a JSON file, a list of objects with the fields of `DecoderTask`.

    Raises:
        ConfigError: it isn't there, or a row can't work; the field is named.
    """
    try:
        values = files.read_json(path)
    except (OSError, CheckpointError) as error:
        raise ConfigError(f"--rows {path}: no JSON file that can be read ({error})") from error
    return from_json(values, where=f"--rows {path}")


def to_json(rows: Sequence[DecoderTask]) -> list[dict[str, Any]]:
    """Return rows as JSON values."""
    return [to_dict(row) for row in rows]


def from_json(values: Any, *, where: str) -> tuple[DecoderTask, ...]:
    """Return rows from JSON values; the names that fields had in format 1 are understood.

    Raises:
        ConfigError: a row can't work; the field is named.
    """
    if not isinstance(values, list):
        raise ConfigError(f"{where}: expected a list of rows, got {type(values).__name__}")
    return tuple(
        from_dict(DecoderTask, _renamed(row), where=f"{where}: row {n}")
        for n, row in enumerate(values)
    )


def _renamed(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    row = {FORMAT_1.get(name, name): value for name, value in row.items()}
    if isinstance(row.get("template"), str):
        row["template"] = row["template"].replace("{sample}", "{prompt_units}")
    return row


def extended(table: Sequence[DecoderTask], rows: Sequence[DecoderTask]) -> tuple[DecoderTask, ...]:
    """Return the table with rows more; one takes the place of a row with its name."""
    new = {row.name: row for row in rows}
    kept = [new.pop(row.name, row) for row in table]
    return (*kept, *new.values())
