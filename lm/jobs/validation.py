"""How good a model is while it trains: the loss of every task, and what it really decodes.

Metrics are named ``<task>/<metric>``: ``asr/loss``, ``asr/wer``, ``st/bleu``, ``lid/accuracy``.
Quick looks on a few utterances; `unitone.eval` has the scores that are published.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sacrebleu
import torch
from rapidfuzz.distance import Levenshtein
from torch import nn

from unitone import seeding
from unitone.lm.data.fields import Fields, Record
from unitone.lm.data.mixture import Batching, examples, total
from unitone.lm.data.store import TokenStore
from unitone.lm.predictor import Prediction, Predictor, predict_all
from unitone.lm.tasks import HIGHER_IS_BETTER, Task
from unitone.train.loading import to_device


@dataclass(frozen=True, kw_only=True)
class Validator:
    """Scores the model that a trainer is training; call it with the step."""

    objective: nn.Module
    """The trainable module, whose forward returns the loss by task."""
    tasks: Mapping[int, Task]
    """By their numbers in the batches: those that the split has examples of."""
    store: TokenStore
    """Of the validation split."""
    batching: Batching
    fields: Fields
    predictor: Callable[[str], Predictor[Any]]
    """Of a task, with the model as it is now."""
    context: int
    """Longest sequence of the model."""
    batches: Sequence[Any]
    utterances: int
    """How many are decoded for each task."""
    max_tokens: int
    """Positions in memory at a time in decoding."""
    bf16: bool

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what it may return."""
        tasks = self.tasks.values()
        decoded = [task for task in tasks if self.utterances and task.metric != "units"]
        losses = ("loss", *(f"{task.name}/loss" for task in tasks))
        return (*losses, *(f"{task.name}/{task.metric}" for task in decoded))

    @property
    def higher_is_better(self) -> tuple[str, ...]:
        """Those of `metrics` of which more is better."""
        return tuple(m for m in self.metrics if m.rpartition("/")[2] in HIGHER_IS_BETTER)

    def __call__(self, step: int) -> dict[str, float]:
        """Return every metric; ``loss`` is the mean of the tasks' losses."""
        metrics = self._losses()
        for number, task in self.tasks.items():
            if self.utterances and task.metric != "units":
                metrics |= self._score(number, task)
        return metrics

    def _losses(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        device = next(self.objective.parameters()).device
        for batch in self.batches:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                parts = self.objective(to_device(batch, device)).parts
            for name, (sum_of, count) in parts.items():
                sums[name] = sums.get(name, 0.0) + float(sum_of)
                counts[name] = counts.get(name, 0.0) + float(count)
        losses = {name: sums[name] / counts[name] for name in sums if counts[name]}
        named = {f"{name}/loss": loss for name, loss in losses.items()}
        tasks = self.tasks.values()
        mean = np.mean([losses[task.name] for task in tasks if task.name in losses])
        return {"loss": float(mean), **named}

    def _score(self, number: int, task: Task) -> dict[str, float]:
        rows, to, costs = examples(self.store, self.batching, number, name=task.name)
        fitting = np.flatnonzero(total(costs) < self.context)
        if not len(fitting):
            return {}
        generator = seeding.stream(0, "validation", task.name)
        picked = generator.permutation(fitting)[: self.utterances]
        records = [self._record(number, task, int(rows[i]), int(to[i])) for i in picked]
        predictor = self.predictor(task.name)
        requests = [predictor.request(record) for record in records]
        found = predict_all(predictor, requests, max_tokens=self.max_tokens)
        return {f"{task.name}/{task.metric}": self._metric(task, records, found)}

    def _metric(self, task: Task, records: Sequence[Record], found: Sequence[Prediction]) -> float:
        if task.metric == "accuracy":
            pairs = zip(found, records, strict=True)
            return float(np.mean([one.label == record[task.output] for one, record in pairs]))
        truth = [self.fields.text_of(record[task.output].tolist()) for record in records]
        texts = [one.text or "" for one in found]
        if task.metric == "bleu":
            return float(sacrebleu.corpus_bleu(texts, [truth]).score)
        words = [(one.split(), other.split()) for one, other in zip(truth, texts, strict=True)]
        errors = sum(Levenshtein.distance(one, other) for one, other in words)
        return errors / max(sum(len(one) for one, _ in words), 1)

    def _record(self, number: int, task: Task, row: int, to: int) -> dict[str, Any]:
        prompting = None
        if "prompt_units" in self.batching.fields(number):  # the same one in every validation
            prompting = seeding.stream(0, "sample", task.name, row)
        return self.store.record(row, to=to, prompting=prompting)
