"""What every model family offers to decode with: requests in, predictions out.

    predictor = loaded.predictor("asr")
    requests = [predictor.request(loaded.fields.record(row)) for row in rows]
    for batch in predictor.batches(requests, max_tokens=32_768):
        found = predictor.predict([requests[number] for number in batch])

`lm.decode`, validation, `unitone.load` and the tour use nothing else of a model.

Axes: T frames or units, Q levels, M mel bands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32

from unitone.codecs.codec import Sound
from unitone.errors import ConfigError
from unitone.lm.data.fields import Record
from unitone.lm.options import MAX_TOKENS
from unitone.lm.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of a recording."""

    word: str
    start: float
    """Seconds."""
    end: float
    confidence: float
    """Of 0 to 1."""

    def rounded(self) -> dict[str, Any]:
        """Return it as JSON values, to a millisecond."""
        values = {"start": self.start, "end": self.end, "confidence": self.confidence}
        return {"word": self.word} | {name: round(one, 3) for name, one in values.items()}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model has made of a request; one of the first six is there."""

    text: str | None = None
    label: str | None = None
    units: Int32[np.ndarray, "T"] | None = None
    codes: Int32[np.ndarray, "Q T"] | None = None
    mel: Float32[np.ndarray, "T M"] | None = None
    waveform: Sound | None = None
    """With its rate, where the family makes the sound itself."""
    score: float = 0.0
    """Log-probability, as the family normalizes it; higher is likelier."""
    truncated: bool = False
    """Whether it was cut off at the cap on its length."""
    span: tuple[int, int] | None = None
    """Of edited speech: the first unit that is new, and the first one after."""
    unrepaired: bool | None = None
    """Whether the model still hears something else in it than it was to say; None: nobody asked."""
    words: tuple[Word, ...] | None = None
    """Of the text, where a `TimesWords` was asked for them."""

    @property
    def speech(self) -> Int32[np.ndarray, "..."] | None:
        """Units or codes, where it is speech in tokens."""
        return self.units if self.codes is None else self.codes


@runtime_checkable
class Request(Protocol):
    """One utterance, ready to be predicted for."""

    @property
    def id(self) -> str:
        """Of the utterance."""
        ...

    @property
    def to(self) -> str | None:
        """Language of the output, where the task has a choice."""
        ...


AnyRequest = TypeVar("AnyRequest", bound=Request)


@runtime_checkable
class Predictor(Protocol[AnyRequest]):
    """A model that is ready to do one task."""

    @property
    def task(self) -> Task:
        """What it does."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """How it searches, as JSON values: part of what a file of hypotheses was made by."""
        ...

    def request(self, record: Record, *, prefix: int = 0) -> AnyRequest:
        """Return the request of a record of `unitone.lm.data.fields`, with ``to`` where it chooses.

        Args:
            record: the utterance.
            prefix: tokens of its output, or frames of codes, that are given.

        Raises:
            CorpusError: something that the task needs is missing or unknown to the vocabulary, or
                too long for the model; the utterance is named.
            ConfigError: the model goes on from no ``prefix``.
        """
        ...

    def batches(self, requests: Sequence[AnyRequest], *, max_tokens: int) -> list[list[int]]:
        """Return the numbers of requests that go together, under a budget of `MAX_TOKENS`'s kind.

        What a search multiplies counts as often; a request that is longer than the budget is alone.
        """
        ...

    def predict(
        self, requests: Sequence[AnyRequest], *, max_tokens: int = MAX_TOKENS
    ) -> list[Prediction]:
        """Return the predictions of one batch; none depends on the others in it.

        What can be computed in parts, such as the candidates of one request, keeps to the budget.
        """
        ...


@runtime_checkable
class TimesWords(Protocol):
    """A predictor that can say when each word is said."""

    def timed(self, requests: Sequence[Any]) -> list[Prediction]:
        """Return what `Predictor.predict` does, with words.

        Raises:
            ConfigError: the task reads no text off speech.
            CorpusError: the durations of an utterance's units aren't known; it is named.
        """
        ...


@runtime_checkable
class VerifiesSpeech(Protocol):
    """A predictor that can recognize its own speech, and make again what is wrong."""

    def verified(self, requests: Sequence[Any]) -> list[Prediction]:
        """Return what `Predictor.predict` does, verified, with ``unrepaired``."""
        ...


def require_verifier(predictor: Any) -> VerifiesSpeech:
    """Return a predictor that can recognize its own speech.

    Raises:
        ConfigError: its family can't.
    """
    if not isinstance(predictor, VerifiesSpeech):
        raise ConfigError(
            "a decoder-only model doesn't verify its speech; use a T2V2 model (--config t2v2-…), "
            "or leave --verify out"
        )
    return predictor


def require_times(predictor: Any) -> TimesWords:
    """Return a predictor that can say when each word is said.

    Raises:
        ConfigError: its family can't.
    """
    if not isinstance(predictor, TimesWords):
        raise ConfigError(
            "words have no times here: a decoder-only model has no alignment of text and speech; "
            "use a T2V2 model (--config t2v2-…), or leave --words out"
        )
    return predictor


def predict_all(
    predictor: Predictor[Any], requests: Sequence[Any], *, max_tokens: int = MAX_TOKENS
) -> list[Prediction]:
    """Return the predictions of requests, batch by batch, in the order of the requests."""
    found: dict[int, Prediction] = {}
    for batch in predictor.batches(requests, max_tokens=max_tokens):
        made = predictor.predict([requests[number] for number in batch], max_tokens=max_tokens)
        found |= dict(zip(batch, made, strict=True))
    return [found[number] for number in range(len(requests))]
