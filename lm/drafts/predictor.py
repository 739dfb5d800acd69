"""A T2V2 drafts, a decoder-only model decides: ``lm.decode --model M --draft DIR``."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitone import files
from unitone.errors import ConfigError, CorpusError
from unitone.lm import family
from unitone.lm.data.fields import Record
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.predictor import DecoderPredictor, PromptRequest
from unitone.lm.decoder.template import Decoding
from unitone.lm.drafts.verify import verify
from unitone.lm.family import LoadedModel
from unitone.lm.options import MAX_TOKENS
from unitone.lm.predictor import Prediction, Predictor, predict_all
from unitone.lm.tasks import Task
from unitone.model_dir import WEIGHTS
from unitone.tokenizers.passport import require_same

logger = logging.getLogger(__name__)

DRAFTED = {"text": "text", "translation": "text", "units": "unit"}
"""Outputs that can be drafted, and the vocabulary's block of their tokens."""


@dataclass(frozen=True, kw_only=True)
class DraftedRequest:
    """One utterance for both models."""

    prompt: PromptRequest
    drafted: Any
    """The request of the model that drafts; None where it can't take the utterance."""

    @property
    def id(self) -> str:
        """Of the utterance."""
        return self.prompt.id

    @property
    def to(self) -> str | None:
        """Language of the output, where the task has a choice."""
        return self.prompt.to


def open_drafted(
    folder: Path,
    loaded: LoadedModel,
    predictor: Predictor[Any],
    *,
    device: str = "auto",
    seed: int = 0,
) -> "DraftedPredictor":
    """Return ``predictor``, of the decoder-only model ``loaded``, with drafts of a T2V2.

    Raises:
        ConfigError: a model is of another family, they have different tokenizers, the search isn't
            greedy, or the T2V2 doesn't do the task.
        CheckpointError: the directory is damaged.
    """
    drafter = open_drafter(folder, loaded, device=device)
    assert isinstance(predictor, DecoderPredictor)
    name = predictor.task.name
    if name not in [task.name for task in drafter.tasks]:
        raise ConfigError(f"--draft {folder}: this model has not learnt task {name}")
    return DraftedPredictor(predictor, drafter.predictor(name, seed=seed), of=drafter)


def open_drafter(
    folder: Path, loaded: LoadedModel, *, device: str = "auto", option: str = "--draft"
) -> LoadedModel:
    """Read a T2V2 whose texts and units are those of ``loaded``, a decoder-only model.

    Raises:
        ConfigError: one of the two is of another family, or they have different tokenizers; the
            fields that differ are named.
        CheckpointError: the directory is damaged.
    """
    drafter = family.load(folder, device=device)
    for model, wanted, name in ((loaded, "decoder", "--model"), (drafter, "t2v2", option)):
        if model.family != wanted:
            raise ConfigError(
                f"{name} {model.folder}: a model of the family {model.family}; {option} is a T2V2 "
                "that helps a decoder-only --model"
            )
    if loaded.passport is None or drafter.passport is None:
        raise ConfigError(f"{option} {folder}: both models need their tokenizer/ to be compared")
    require_same(loaded.passport, drafter.passport, what=f"{option} {folder}")
    return drafter


def require_greedy(decoding: Decoding) -> None:
    """Refuse searches that a draft can't be verified for.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in (("beam", 1), ("temperature", 0.0), ("candidates", 1), ("guidance", 1.0)):
        if getattr(decoding, name) != value:
            raise ConfigError(
                f"--draft: what is verified is greedy search; set --{name} {value:g}, not "
                f"{getattr(decoding, name):g}"
            )


class DraftedPredictor:
    """What the decoder-only model's greedy search does, sooner."""

    def __init__(
        self, predictor: DecoderPredictor, drafter: Predictor[Any], *, of: LoadedModel
    ) -> None:
        """Put both together; ``of`` is the model directory of ``drafter``.

        Raises:
            ConfigError: the search isn't greedy, or the task's output can't be drafted.
        """
        require_greedy(predictor.decoding)
        if predictor.task.output not in DRAFTED:
            raise ConfigError(f"--draft: task {predictor.task.name} has no text or units to draft")
        self.task: Task = predictor.task
        self._predictor, self._drafter, self._of = predictor, drafter, of
        self.passes = self.written = 0
        """Of the decoder-only model; tokens written so far."""

    @property
    def settings(self) -> dict[str, Any]:
        """Both searches, as JSON values."""
        drafter = {"model": files.sha256(self._of.folder / WEIGHTS), **self._drafter.settings}
        return {**self._predictor.settings, "draft": drafter}

    def request(self, record: Record, *, prefix: int = 0) -> DraftedRequest:
        """Return the request of a record; see `unitone.lm.predictor.Predictor`."""
        if prefix:
            raise ConfigError("--prefix: a draft is of a whole output; leave one of them out")
        prompt = self._predictor.request(record)
        ours = self._predictor.formatter.vocabulary
        try:
            drafted = self._drafter.request(translated(record, ours, self._of.vocabulary))
        except CorpusError as error:
            logger.warning("not drafted: %s", error)
            drafted = None
        return DraftedRequest(prompt=prompt, drafted=drafted)

    def batches(self, requests: Sequence[DraftedRequest], *, max_tokens: int) -> list[list[int]]:
        """Return the numbers of requests that go together: they are drafted as a batch."""
        return self._predictor.batches([one.prompt for one in requests], max_tokens=max_tokens)

    def predict(
        self, requests: Sequence[DraftedRequest], *, max_tokens: int = MAX_TOKENS
    ) -> list[Prediction]:
        """Draft all, then verify one by one."""
        some = [one for one in requests if one.drafted is not None]
        drafts = predict_all(self._drafter, [one.drafted for one in some], max_tokens=max_tokens)
        by_id = {id(one): draft for one, draft in zip(some, drafts, strict=True)}
        return [self._verified(one, by_id.get(id(one))) for one in requests]

    def _verified(self, request: DraftedRequest, draft: Prediction | None) -> Prediction:
        fields = self._predictor.formatter.fields
        tokens: Sequence[int] = []
        if draft is not None and draft.units is not None:
            tokens = fields.unit_tokens(draft.units).tolist()
        elif draft is not None and draft.text:
            tokens = fields.text_tokens(draft.text).tolist()
        found = verify(
            self._predictor.model,
            request.prompt.prompt,
            tokens,
            allowed=self._predictor.allowed,
            eos=fields.vocabulary.eos_id,
            decoding=self._predictor.decoding,
        )
        self.passes += found.passes
        self.written += len(found.tokens) + (not found.truncated)
        return self._predictor.formatter.prediction(
            self._predictor.row, found.tokens, score=found.score, truncated=found.truncated
        )


def translated(record: Record, ours: Vocabulary, theirs: Vocabulary) -> dict[str, Any]:
    """Return a record with the tokens of another vocabulary over the same tokenizer."""
    blocks = {"units": "unit", "prompt_units": "unit", "text": "text", "translation": "text"}

    def moved(name: str, value: Any) -> Any:
        if name not in blocks or not isinstance(value, np.ndarray):
            return value
        ids = ours.block(blocks[name]).decode(value)
        return theirs.block(blocks[name]).encode(ids)

    return {name: moved(name, value) for name, value in record.items()}
