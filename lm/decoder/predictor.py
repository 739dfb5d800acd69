"""The decoder-only model doing one task: what `unitone.lm.predictor` asks of every family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from unitone import config as configs
from unitone import seeding
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.fields import Record
from unitone.lm.decoder import generation
from unitone.lm.decoder.batch import collate
from unitone.lm.decoder.generation import Hypothesis, Model
from unitone.lm.decoder.layout import Example, PromptFormatter
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.options import DecodingConfig
from unitone.lm.decoder.template import DecoderTask, Decoding
from unitone.lm.family import LoadedModel
from unitone.lm.options import MAX_TOKENS
from unitone.lm.predictor import Prediction
from unitone.lm.tasks import select

CANDIDATES, TEMPERATURE = 16, 0.4
"""A careful prediction is the likeliest of so many, drawn like this."""


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """One utterance, ready to be generated for."""

    id: str
    to: str | None
    """Language of the output, where the task has a choice."""
    prompt: Example
    null: Example | None
    """The prompt without its condition, where there is guidance."""
    record: Record
    """The utterance's fields as tokens."""
    prefix: tuple[int, ...] = ()
    """The beginning of the target, given."""


def open_predictor(
    loaded: LoadedModel,
    task: str,
    *,
    config: DecodingConfig | None = None,
    seed: int = 0,
    careful: bool = False,
) -> "DecoderPredictor":
    """Return the predictor of a model directory.

    Args:
        loaded: the model.
        task: name of a row of its table.
        config: instead of the task's own settings.
        seed: of what is drawn; each utterance draws from a stream of its own.
        careful: of several candidates, take the one that the inverse task finds likeliest, where
            the model can do that.

    Raises:
        ConfigError: the model has no such task, its vocabulary has not its tokens, or the settings
            can't work.
    """
    (row,) = select(loaded.table, [task])
    decoding = (config or DecodingConfig()).of(row.decoding)
    require_null(decoding, loaded.null_share)
    if careful and reranker(row, loaded.table):
        decoding = replace(decoding, beam=1, temperature=TEMPERATURE, candidates=CANDIDATES)
    return DecoderPredictor(
        loaded.model,
        replace(row, decoding=decoding),
        table=loaded.table,
        formatter=open_formatter(loaded),
        seed=seed,
        int8=loaded.int8,
    )


def require_null(decoding: Decoding, null_share: float | None) -> None:
    """Refuse guidance by a model that has never seen a prompt without its condition.

    Raises:
        ConfigError: ``null_share`` of its training was 0. Of older models it is not known.
    """
    if decoding.guidance != 1.0 and null_share == 0:
        raise ConfigError(
            f"--guidance {decoding.guidance:g}: this model was trained without --null-share, so it "
            "knows no prompt without its condition; leave --guidance out, or train with "
            "--null-share 0.1"
        )


def open_formatter(loaded: LoadedModel) -> PromptFormatter:
    """Return what lays out the sequences of a model directory."""
    pattern = loaded.codes.pattern if loaded.codes else "delay"
    return PromptFormatter(loaded.fields, pattern=pattern)


class DecoderPredictor:
    """Holds the model ready, and knows how to prompt it."""

    def __init__(
        self,
        model: Model,
        row: DecoderTask,
        *,
        table: Sequence[DecoderTask],
        formatter: PromptFormatter,
        seed: int = 0,
        int8: bool = False,
    ) -> None:
        """Check that the model can do the task of ``row``, as its ``decoding`` says.

        Raises:
            ConfigError: the vocabulary has not its tokens, the settings can't work, or there is no
                int8 here.
        """
        self.row, self.task, self.decoding = row, row.task, row.decoding
        self.formatter = formatter
        formatter.check(row)
        self._levels = formatter.levels(row)
        generation.check(self.decoding, levels=self._levels)
        self.allowed = formatter.allowed(row)
        self.model = generation.prepare(model, int8=int8)
        self._seed = seed
        self._reranker: DecoderTask | None = None
        if self.decoding.candidates > 1:
            self._reranker = reranker(row, table)
            if self._reranker is None:
                raise ConfigError(f"--candidates: no task of this model reranks {row.name}")
            formatter.check(self._reranker)

    @property
    def settings(self) -> dict[str, Any]:
        """The search, as JSON values."""
        return configs.to_dict(self.decoding)

    def request(self, record: Record, *, prefix: int = 0) -> PromptRequest:
        """Return the request of a record; see `unitone.lm.predictor.Predictor`."""
        try:
            return self._request(record, prefix)
        except (ConfigError, ValueError) as error:
            raise CorpusError(f"{record['id']}: {error}") from error

    def _request(self, record: Record, prefix: int) -> PromptRequest:
        name, row = record["id"], self.row
        for field in (*row.needs, *([row.output] if prefix else [])):
            value = record.get(field)
            if value is None or (not isinstance(value, str) and not np.size(value)):
                raise CorpusError(f"{name}: has no {field}, which task {row.name} needs")
        prompt = self.formatter.prompt(row, record)
        start = len(prompt)
        if prefix:
            prefix = min(prefix, self.formatter.size(row, record))  # not the end of sequence
            prompt = self.formatter.prompt(row, record, prefix=prefix)
        context = self.model.config.context
        if len(prompt) >= context:
            raise CorpusError(
                f"{name}: {len(prompt)} tokens of prompt, the model's context is {context}"
            )
        null = None
        if self.decoding.guidance != 1.0:
            null = self.formatter.prompt(row, record, prefix=prefix, null=True)
        given = self.formatter.given(row, record, prompt.tokens[start:], prefix)
        return PromptRequest(
            id=name, to=record.get("to"), prompt=prompt, null=null, record=record, prefix=given
        )

    def batches(self, requests: Sequence[PromptRequest], *, max_tokens: int) -> list[list[int]]:
        """Return the numbers of requests that go together."""
        return generation.groups(
            [len(one.prompt) for one in requests],
            new=[self._limit(one) for one in requests],
            each=self._rows * self.decoding.candidates,
            max_tokens=max_tokens,
        )

    @property
    def _rows(self) -> int:
        """Rows of one candidate: its beams and, with guidance, their twins."""
        return self.decoding.beam * (1 if self.decoding.guidance == 1.0 else 2)

    def _limit(self, request: PromptRequest) -> int:
        context = self.model.config.context
        return generation.limit(len(request.prompt), self.decoding, context=context)

    def predict(
        self, requests: Sequence[PromptRequest], *, max_tokens: int = MAX_TOKENS
    ) -> list[Prediction]:
        """Generate for one batch; of several candidates, return the one that reranking chooses."""
        candidates = range(self.decoding.candidates)
        drawn = [(one, number) for one in requests for number in candidates]
        longest = max((len(one.prompt) for one in requests), default=0)
        longest += max(map(self._limit, requests), default=0)
        together = len(drawn)
        if len(candidates) > 1:  # of one request alone there may be too many
            together = max(1, max_tokens // (self._rows * longest))
        found: list[Hypothesis] = []
        for first in range(0, len(drawn), together):
            found += self._generate(drawn[first : first + together])
        if self._reranker is not None:
            found = self._reranked(requests, found, self._reranker, max_tokens=max_tokens)
        return [
            self.formatter.prediction(
                self.row,
                [*request.prefix, *one.tokens],
                score=one.score,
                truncated=one.truncated,
            )
            for request, one in zip(requests, found, strict=True)
        ]

    def nbest(self, requests: Sequence[PromptRequest]) -> list[list[Hypothesis]]:
        """Return the texts of each request that beam search has found, the best first.

        Raises:
            ConfigError: the settings draw, or guide.
        """
        decoding = self.decoding
        if decoding.temperature or decoding.guidance != 1.0:
            raise ConfigError("n-best lists come from beam search: no --temperature, no --guidance")
        return generation.nbest(
            self.model,
            [one.prompt for one in requests],
            allowed=self.allowed,
            eos=self.formatter.vocabulary.eos_id,
            decoding=decoding,
        )

    def _generate(self, drawn: Sequence[tuple[PromptRequest, int]]) -> list[Hypothesis]:
        """Generate for requests, each with the number of its candidate."""
        nulls = [one.null for one, _ in drawn if one.null is not None]
        several = self.decoding.candidates > 1
        return generation.generate(
            self.model,
            [one.prompt for one, _ in drawn],
            allowed=self.allowed,
            eos=self.formatter.vocabulary.eos_id,
            decoding=self.decoding,
            levels=self._levels,
            nulls=nulls or None,
            generators=[
                seeding.stream(
                    *(self._seed, "decode", self.row.name, one.id, one.to or ""),
                    *([number] if several else []),
                )
                for one, number in drawn
            ],
        )

    def _reranked(
        self,
        requests: Sequence[PromptRequest],
        found: Sequence[Hypothesis],
        reranker: DecoderTask,
        *,
        max_tokens: int,
    ) -> list[Hypothesis]:
        """Return each request's hypothesis for which the inverse task finds the input likeliest."""
        count = self.decoding.candidates
        chosen = []
        for number, request in enumerate(requests):
            mine = found[number * count : (number + 1) * count]
            outputs = [
                self.formatter.field(self.row, [*request.prefix, *one.tokens]) for one in mine
            ]
            examples = [
                self.formatter.example(reranker, {**request.record, self.row.output: tokens})
                for tokens in outputs
            ]
            likelihoods: dict[int, float] = {}
            for group in generation.groups(list(map(len, examples)), max_tokens=max_tokens):
                sums = log_likelihoods(self.model, [examples[place] for place in group])
                likelihoods |= dict(zip(group, sums, strict=True))
            best = max(
                range(count), key=lambda place: (outputs[place].size > 0, likelihoods[place])
            )
            chosen.append(mine[best])
        return chosen


def reranker(row: DecoderTask, table: Sequence[DecoderTask]) -> DecoderTask | None:
    """Return the inverse task of ``row``; None where no row of the table can do it."""
    given = {*row.needs, row.output}
    for other in table:
        if other.name == row.rerank and given >= {*other.fields}:
            return other
    return None


@torch.inference_mode()
def log_likelihoods(model: Model, examples: Sequence[Example]) -> list[float]:
    """Return the sum of the log-probabilities of each example's target, in nats.

    All examples go through the model as one batch; their targets have one stream of tokens.
    """
    batch = collate([[(0, example)] for example in examples])
    device = next(model.parameters()).device
    targets = batch.targets.to(device)
    if targets.ndim == 3:  # codes among what is given
        targets = targets[..., 0]
    vectors = {
        kind: type(given)(values=given.values.to(device), where=given.where.to(device))
        for kind, given in batch.vectors.items()
    }
    states = model(batch.tokens.to(device), vectors=vectors)
    learnt = targets != NONE
    log_p = model.head(states[learnt]).float().log_softmax(dim=-1)
    found = log_p.gather(1, targets[learnt][:, None])[:, 0]
    rows = learnt.nonzero()[:, 0]
    sums = torch.zeros(len(examples), device=device).index_add(0, rows, found)
    return [float(total) for total in sums]
