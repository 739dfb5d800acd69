"""How good a model is while it trains: the loss of every task, and what it really decodes.

Metrics are named ``<task>/<metric>``: ``asr/loss``, ``asr/wer``, ``st/bleu``, ``lid/accuracy``.
Quick looks on a few utterances; `unitone.eval` has the scores that are published.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sacrebleu
import torch
from rapidfuzz.distance import Levenshtein
from torch import nn

from unitone import seeding
from unitone.lm.data.mixture import Batch
from unitone.lm.data.store import TokenStore
from unitone.lm.decoder import generation
from unitone.lm.decoder.layout import Composer, Output
from unitone.lm.tasks import Task
from unitone.train.loading import to_device


@dataclass(frozen=True, kw_only=True)
class Validator:
    """Scores the model that a trainer is training; call it with the step."""

    objective: nn.Module
    """The player, whose forward returns the loss by task."""
    model: generation.Model
    composer: Composer
    tasks: Sequence[Task]
    store: TokenStore
    """Of the validation split."""
    batches: Sequence[Batch]
    utterances: int
    """How many are decoded for each task."""
    max_tokens: int
    """Of a batch in decoding."""
    bf16: bool

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what it may return."""
        decoded = [task for task in self.tasks if self.utterances and task.metric != "units"]
        losses = ("loss", *(f"{task.name}/loss" for task in self.tasks))
        return (*losses, *(f"{task.name}/{task.metric}" for task in decoded))

    def __call__(self, step: int) -> dict[str, float]:
        """Return every metric; ``loss`` is the mean of the tasks' losses."""
        metrics = self._losses()
        model = generation.prepare(self.model)
        for task in self.tasks:
            if self.utterances and task.metric != "units":
                metrics |= self._score(model, task)
        return metrics

    def _losses(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        device = next(self.model.parameters()).device
        for batch in self.batches:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                parts = self.objective(to_device(batch, device)).parts
            for name, (total, count) in parts.items():
                sums[name] = sums.get(name, 0.0) + float(total)
                counts[name] = counts.get(name, 0.0) + float(count)
        losses = {name: sums[name] / counts[name] for name in sums if counts[name]}
        named = {f"{name}/loss": loss for name, loss in losses.items()}
        mean = np.mean([losses[task.name] for task in self.tasks if task.name in losses])
        return {"loss": float(mean), **named}

    def _score(self, model: generation.Model, task: Task) -> dict[str, float]:
        rows, to, lengths = self.store.examples(task, self.composer)
        fitting = np.flatnonzero(lengths <= self.model.config.context)
        if not len(fitting):
            return {}
        generator = seeding.stream(0, "validation", task.name)
        picked = generator.permutation(fitting)[: self.utterances]
        records = [self._record(task, int(rows[i]), int(to[i])) for i in picked]
        said: list[Output] = [Output()] * len(records)
        for index, output in self._decode(model, task, records):
            said[index] = output
        if task.metric == "accuracy":
            right = [
                output.label == record[task.output]
                for output, record in zip(said, records, strict=True)
            ]
            return {f"{task.name}/accuracy": float(np.mean(right))}
        text = self.composer.vocabulary.block("text")
        truth = [
            self.composer.text.decode(text.decode(record[task.output].tolist()))
            for record in records
        ]
        found = [output.text or "" for output in said]
        if task.metric == "bleu":
            return {f"{task.name}/bleu": float(sacrebleu.corpus_bleu(found, [truth]).score)}
        words = [(one.split(), other.split()) for one, other in zip(truth, found, strict=True)]
        errors = sum(Levenshtein.distance(one, other) for one, other in words)
        return {f"{task.name}/wer": errors / max(sum(len(one) for one, _ in words), 1)}

    def _record(self, task: Task, row: int, to: int) -> dict[str, Any]:
        sampling = None
        if "sample" in task.fields:  # the same one in every validation
            sampling = seeding.stream(0, "sample", task.name, row)
        return self.store.record(row, to=to, sampling=sampling)

    def _decode(
        self, model: generation.Model, task: Task, records: Sequence[Any]
    ) -> Iterator[tuple[int, Output]]:
        prompts = [self.composer.prompt(task, record) for record in records]
        groups = generation.groups([len(prompt) for prompt in prompts], max_tokens=self.max_tokens)
        for group in groups:
            found = generation.generate(
                model,
                [prompts[index] for index in group],
                allowed=self.composer.allowed(task),
                eos=self.composer.vocabulary.eos_id,
                decoding=task.decoding,
            )
            for index, hypothesis in zip(group, found, strict=True):
                yield index, self.composer.output(task, hypothesis.tokens)
