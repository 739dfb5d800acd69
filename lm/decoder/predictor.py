"""A trained model doing one task: records in, what it says out. Decoding and the short API use it.

performer = Performer(loaded, task="asr")
jobs = [performer.job(row) for row in rows]
for batch in performer.batches(jobs): said = performer.run([jobs[number] for number in batch])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitone import seeding
from unitone.errors import ConfigError, CorpusError
from unitone.lm.decoder import generation
from unitone.lm.decoder.generation import Hypothesis
from unitone.lm.decoder.layout import Composer, Example, Output
from unitone.lm.decoder.likelihood import log_likelihoods
from unitone.lm.family import Loaded
from unitone.lm.tasks import Decoding, Task, select

MAX_TOKENS = 16_384
"""Prompt tokens of a batch, padding included."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One utterance, ready to be generated for."""

    id: str
    to: str | None
    """Language of the output, where the task has a choice."""
    prompt: Example
    null: Example | None
    """The prompt without its condition, where there is guidance."""
    record: Mapping[str, Any]
    """The utterance's fields as tokens."""
    prefix: tuple[int, ...] = ()
    """The beginning of the target, given."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was generated for a job."""

    output: Output
    """With the prefix, where one was given."""
    score: float
    truncated: bool


class Performer:
    """Holds the model ready, and knows how to ask it."""

    def __init__(
        self,
        loaded: Loaded,
        task: str,
        *,
        decoding: Decoding | None = None,
        seed: int = 0,
        composer: Composer | None = None,
    ) -> None:
        """Check that the model can do ``task``.

        Args:
            loaded: the model.
            task: name of a row of its table.
            decoding: instead of the task's own.
            seed: of what is drawn; each utterance draws from a stream of its own.
            composer: where there is one already.

        Raises:
            ConfigError: the model has no such task, its vocabulary lacks the tokens, or the
                settings can't work.
        """
        (self.task,) = select(loaded.tasks, [task])
        self.decoding = decoding or self.task.decoding
        self.composer = composer or open_composer(loaded)
        self.composer.check(self.task)
        self._levels = self.composer.levels(self.task)
        generation.check(self.decoding, levels=self._levels)
        self._allowed = self.composer.allowed(self.task)
        self._model = generation.prepare(loaded.model)
        self._seed = seed
        self._check: Task | None = None
        if self.decoding.candidates > 1:
            self._check = self._checking(loaded.tasks)

    def _checking(self, tasks: Sequence[Task]) -> Task:
        check = checker(self.task, tasks)
        if check is None:
            raise ConfigError(f"--candidates: no task of this model checks {self.task.name}")
        self.composer.check(check)
        return check

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of an utterance that the prompt is made of."""
        return tuple(dict.fromkeys(part.name for part in self.task.prompt if part.kind == "field"))

    def job(self, row: Mapping[str, Any], *, to: str | None = None, prefix: int = 0) -> Job:
        """Return the job of an utterance as shards or manifests have it.

        Args:
            row: the utterance.
            to: language of the output, where the task has a choice.
            prefix: tokens of its target that are given.

        Raises:
            CorpusError: something that the prompt needs is missing or unknown to the vocabulary,
                or the prompt does not fit into the model's context; the utterance is named.
        """
        try:
            record = self.composer.record(row)
            if to is not None:
                record["to"] = to
            return self._job(record, prefix)
        except (ConfigError, ValueError) as error:
            raise CorpusError(f"{row['id']}: {error}") from error

    def _job(self, record: dict[str, Any], prefix: int) -> Job:
        name = record["id"]
        for field in (*self.needs, *([self.task.output] if prefix else [])):
            value = record.get(field)
            if value is None or (not isinstance(value, str) and not np.size(value)):
                raise CorpusError(f"{name}: has no {field}, which task {self.task.name} needs")
        prompt = self.composer.prompt(self.task, record)
        start = len(prompt)
        if prefix:
            prefix = min(prefix, self.composer.size(self.task, record))  # not the end of sequence
            prompt = self.composer.prompt(self.task, record, prefix=prefix)
        context = self._model.config.context
        if len(prompt) >= context:
            raise CorpusError(
                f"{name}: {len(prompt)} tokens of prompt, the model's context is {context}"
            )
        null = None
        if self.decoding.guidance != 1.0:
            null = self.composer.prompt(self.task, record, prefix=prefix, null=True)
        given = self.composer.given(self.task, record, prompt.tokens[start:], prefix)
        return Job(
            id=name, to=record.get("to"), prompt=prompt, null=null, record=record, prefix=given
        )

    def batches(self, jobs: Sequence[Job], *, max_tokens: int = MAX_TOKENS) -> list[list[int]]:
        """Return the numbers of jobs that go together."""
        return generation.groups([len(job.prompt) for job in jobs], max_tokens=max_tokens)

    def run(self, jobs: Sequence[Job]) -> list[Said]:
        """Generate for one batch; of several candidates, return the one that is checked best."""
        count = self.decoding.candidates
        found = self._generate([job for job in jobs for _ in range(count)])
        if self._check is not None:
            found = self._checked(jobs, found)
        return [
            Said(
                output=self.composer.output(self.task, [*job.prefix, *one.tokens]),
                score=one.score,
                truncated=one.truncated,
            )
            for job, one in zip(jobs, found, strict=True)
        ]

    def _generate(self, jobs: Sequence[Job]) -> list[Hypothesis]:
        nulls = [job.null for job in jobs if job.null is not None]
        count = self.decoding.candidates
        return generation.generate(
            self._model,
            [job.prompt for job in jobs],
            allowed=self._allowed,
            eos=self.composer.vocabulary.eos_id,
            decoding=self.decoding,
            levels=self._levels,
            nulls=nulls or None,
            generators=[
                seeding.stream(
                    *(self._seed, "decode", self.task.name, job.id, job.to or ""),
                    *([place % count] if count > 1 else []),
                )
                for place, job in enumerate(jobs)
            ],
        )

    def _checked(self, jobs: Sequence[Job], found: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Return each job's hypothesis for which the checking task finds the input likeliest."""
        assert self._check is not None
        count = self.decoding.candidates
        chosen = []
        for number, job in enumerate(jobs):
            mine = found[number * count : (number + 1) * count]
            said = [self.composer.field(self.task, [*job.prefix, *one.tokens]) for one in mine]
            examples = [
                self.composer.example(self._check, {**job.record, self.task.output: tokens})
                for tokens in said
            ]
            likelihoods = log_likelihoods(self._model, examples)
            best = max(range(count), key=lambda place: (said[place].size > 0, likelihoods[place]))
            chosen.append(mine[best])
        return chosen


def checker(task: Task, table: Sequence[Task]) -> Task | None:
    """Return the row that reads back what ``task`` says; None where no row of the table can."""
    given = {part.name for part in task.prompt if part.kind == "field"} | {task.output}
    for row in table:
        if row.name == task.check and given >= {*row.fields}:
            return row
    return None


def open_composer(loaded: Loaded) -> Composer:
    """Return the composer of a model directory.

    Raises:
        ConfigError: it has no tokenizer.
    """
    if loaded.tokenizer is None:
        raise ConfigError(
            f"{loaded.folder} has no tokenizer/, so text and units can't be read: copy the whole "
            "directory, or the tokenizer's own into it"
        )
    pattern = loaded.codes.pattern if loaded.codes else "delay"
    return Composer.open(loaded.tokenizer, loaded.vocabulary, pattern=pattern)
