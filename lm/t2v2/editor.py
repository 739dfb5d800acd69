"""Editing as a task of `lm.decode` and `unitone.load`: units, their text and another text in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from unitone import config as configs
from unitone import seeding
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.fields import Fields, Record
from unitone.lm.options import MAX_TOKENS
from unitone.lm.predictor import Prediction
from unitone.lm.t2v2 import editing
from unitone.lm.t2v2.batch import T2V2Batching, groups
from unitone.lm.t2v2.decoding import Synthesis
from unitone.lm.t2v2.model import T2V2
from unitone.lm.t2v2.options import DecodingConfig
from unitone.lm.tasks import Task

EDIT = Task(
    name="edit",
    inputs=("units", "text", "edited"),
    output="units",
    metric="units",
    optional=("language", "speaker"),
)
"""Nothing of its own is learnt for it: what synthesizes can edit."""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One utterance, and what it is to say."""

    id: str
    units: Int[np.ndarray, "U"]
    text: Int[np.ndarray, "S"]
    edited: Int[np.ndarray, "R"]
    language: int
    speaker: int
    to: str | None = None


class Editor:
    """A `unitone.lm.predictor.Predictor` of `EDIT`."""

    task = EDIT

    def __init__(
        self,
        model: T2V2,
        *,
        fields: Fields,
        batching: T2V2Batching,
        deduplicated: bool,
        config: DecodingConfig,
        how: Synthesis,
        seed: int,
    ) -> None:
        """Hold the model ready; arguments as of `unitone.lm.t2v2.predictor.T2V2Predictor`."""
        self._model, self._fields, self._batching = model, fields, batching
        self._deduplicated, self._config, self._how, self._seed = deduplicated, config, how, seed

    @property
    def settings(self) -> dict[str, Any]:
        """How it decodes, as JSON values."""
        return configs.to_dict(self._config)

    def request(self, record: Record, *, prefix: int = 0) -> EditRequest:
        """Return the request of a record; see `unitone.lm.predictor.Predictor`."""
        name = record["id"]
        if prefix:
            raise ConfigError("--prefix: an edit begins where the text changes; leave it out")
        for field in self.task.inputs:
            if record.get(field) is None or not np.size(record[field]):
                raise CorpusError(f"{name}: has no {field}, which task edit needs")
        given = self._batching.given(record, "pair")
        edited = self._fields.vocabulary.block("text").decode(np.asarray(record["edited"]))
        units, frames = given.units[:: self._batching.upsample], len(given.units)
        context = self._model.config.context
        if max(frames, len(edited)) > context:
            raise CorpusError(
                f"{name}: {frames} frames, {len(edited)} tokens, the model's context is {context}"
            )
        if len(given.text) > frames:
            raise CorpusError(
                f"{name}: {len(given.text)} tokens of text are more than its {frames} frames: give "
                "the recording's own text; where it is that, train with --upsample 2"
            )
        return EditRequest(
            id=name,
            units=units,
            text=given.text,
            edited=edited.astype(np.int64),
            language=given.language,
            speaker=given.speaker,
        )

    def batches(self, requests: Sequence[EditRequest], *, max_tokens: int) -> list[list[int]]:
        """Return the numbers of requests that go together: each is edited by itself."""
        return groups([len(one.units) for one in requests], max_tokens=max_tokens)

    def predict(
        self, requests: Sequence[EditRequest], *, max_tokens: int = MAX_TOKENS
    ) -> list[Prediction]:
        """Return the predictions of one batch."""
        return [self._edited(one) for one in requests]

    def _edited(self, request: EditRequest) -> Prediction:
        device = next(self._model.parameters()).device
        old, new = request.text.tolist(), request.edited.tolist()
        if old == new:
            return Prediction(units=self._spelled(request.units), span=(0, 0))
        changed = editing.change(old, new, self._fields.text.decode)
        found = editing.edit(
            self._model,
            torch.from_numpy(request.units).to(device),
            torch.from_numpy(request.text).to(device),
            torch.from_numpy(request.edited).to(device),
            changed,
            [not self._fields.text.decode([one]).strip() for one in old],
            {
                "language": torch.tensor([request.language], device=device),
                "speaker": torch.tensor([request.speaker], device=device),
            },
            how=self._how,
            generator=seeding.stream(self._seed, "edit", request.id),
        )
        before, made = found.units[: found.start], found.units[found.start : found.end]
        after = found.units[found.end :]
        if self._deduplicated and len(made):
            around = np.concatenate((before[-1:], made, after[:1]))
            first = len(before[-1:])
            repeats = np.diff(around, prepend=-1) == 0
            repeats[first + len(made) - 1] |= len(after) > 0 and made[-1] == after[0]
            made = made[~repeats[first : first + len(made)]]
        parts = [self._spelled(part) for part in (before, made, after)]
        start, end = len(parts[0]), len(parts[0]) + len(parts[1])
        return Prediction(units=np.concatenate(parts), span=(start, end))

    def _spelled(self, ids: Int[np.ndarray, "U"]) -> Int[np.ndarray, "V"]:
        block = self._fields.vocabulary.block("unit")
        return self._fields.units_of(block.encode(ids.astype(np.int32)).tolist())
