"""Generation: prompts in, hypotheses out; greedy, sampled or by beam search, a batch at a time.

    model = prepare(model)                                  # once, for speed
    found = generate(model, prompts, allowed=formatter.allowed(task), eos=vocabulary.eos_id,
                     decoding=task.decoding)

The loop is `_Batch.steps`: the stepper reads the prompts and gives logits; rules take some of the
columns away; a column is chosen; the stepper puts its token after the row and gives logits again.
Rows that have ended leave. Beam search and codes with a delay drive the same stepper by other rules
(`unitone.lm.decoder.search`). What is fast is in `unitone.lm.decoder.kernels`, and nothing here
depends on it.

The softmax is over the tokens that may be generated only, so nothing else can be. What a row says
does not depend on its neighbors in the batch (but for the rounding of sums): not through padding,
not through the neighbors' lengths, and not through random numbers, which every row has of its own.

Axes: B prompts, V vocabulary, T tokens generated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm.decoder import template
from unitone.lm.decoder.codes import Levels
from unitone.lm.decoder.kernels import Model, prepare
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.sampling import choose, constrain
from unitone.lm.decoder.search import BeamSearch, DelayedSearch
from unitone.lm.decoder.stepping import DelayedStepper, open_stepper
from unitone.lm.decoder.template import Decoding

__all__ = ["Hypothesis", "Model", "generate", "groups", "prepare", "stream"]

SPARE = 0.25
"""Finished rows leave the batch when they are more than this share of it: it costs a copy of the
cache."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    tokens: list[int]
    """What was generated, without the end of sequence; codes frame by frame, whole frames only."""
    score: float
    """Sum of the log-probabilities, that of the end included, by the number of tokens to the power
    of the length penalty."""
    truncated: bool
    """Whether it reached its cap before it ended."""
    log_p: float = 0.0
    """Sum of the log-probabilities."""


def check(decoding: Decoding, *, levels: Levels | None = None) -> None:
    """Refuse settings that can't work together, for these codes, or at all.

    Raises:
        ConfigError: naming the setting.
    """
    template.check(decoding)
    if levels is not None and levels.delayed and decoding.beam > 1:
        raise ConfigError(
            "decoding: no beam search over codes with a delay; use beam 1, or train with "
            "--codes-pattern flat"
        )


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[Example],
    *,
    allowed: Bool[Tensor, "V"],
    eos: int,
    decoding: Decoding,
    levels: Levels | None = None,
    nulls: Sequence[Example] | None = None,
    generators: Sequence[np.random.Generator] | None = None,
) -> list[Hypothesis]:
    """Return a hypothesis for each prompt, all of them in one batch.

    Args:
        model: what `prepare` returned, or any model, which is prepared first.
        prompts: not longer than the model's context; see `groups` for batches of them.
        allowed: tokens that may be generated.
        eos: token that ends a sequence; it is allowed.
        decoding: how to choose, and when to stop. A prompt's cap is also the rest of the context.
        levels: how codes of a codec lie, where such are generated.
        nulls: the prompts without their conditions, for ``decoding.guidance``.
        generators: one for each prompt, where tokens are drawn; default: streams of seed 0.

    Raises:
        ConfigError: the settings can't work, or a prompt fills the context.
    """
    check(decoding, levels=levels)
    if not prompts:
        return []
    batch = _Batch(
        model, prompts, allowed=allowed, eos=eos, decoding=decoding, levels=levels, nulls=nulls
    )
    if isinstance(batch.stepper, DelayedStepper):
        return batch.delayed(batch.stepper, generators)
    if decoding.beam > 1:
        search = BeamSearch(batch.stepper, decoding=decoding, eos=batch.eos, limits=batch.limits)
        return [
            batch.hypothesis(one.columns, log_p=one.log_p, truncated=one.truncated)
            for one in search.run()
        ]
    for _ in batch.steps(generators):
        pass
    return batch.results()


@torch.inference_mode()
def nbest(
    model: Model,
    prompts: Sequence[Example],
    *,
    allowed: Bool[Tensor, "V"],
    eos: int,
    decoding: Decoding,
) -> list[list[Hypothesis]]:
    """Return the hypotheses that beam search has of each prompt at its end, the best first.

    Arguments and errors as of `generate`, without drawing and without guidance.
    """
    check(decoding)
    batch = _Batch(
        model, prompts, allowed=allowed, eos=eos, decoding=decoding, levels=None, nulls=None
    )
    search = BeamSearch(batch.stepper, decoding=decoding, eos=batch.eos, limits=batch.limits)
    search.run()
    return [
        [batch.hypothesis(one.columns, log_p=one.log_p, truncated=one.truncated) for one in found]
        for found in search.found
    ]


def stream(
    model: Model,
    prompt: Example,
    *,
    allowed: Bool[Tensor, "V"],
    eos: int,
    decoding: Decoding,
    levels: Levels | None = None,
    null: Example | None = None,
    generator: np.random.Generator | None = None,
) -> Iterator[int]:
    """Yield the tokens of one prompt as they come; arguments and errors as `generate`.

    Beam search can't: its first token is known at the end. Codes with a delay can't either: they
    come in several streams.
    """
    check(decoding, levels=levels)
    if decoding.beam > 1:
        raise ConfigError("decoding: a stream needs beam 1")
    if levels is not None and levels.delayed:
        raise ConfigError("decoding: codes come one by one in the flat pattern, not with a delay")
    nulls = None if null is None else [null]
    with torch.inference_mode():  # step by step: the caller's code between them is not in it
        batch = _Batch(
            model, [prompt], allowed=allowed, eos=eos, decoding=decoding, levels=levels, nulls=nulls
        )
        steps = batch.steps(None if generator is None else [generator])
    while True:
        with torch.inference_mode():
            columns = next(steps, None)
            token = eos if columns is None else int(batch.stepper.tokens[columns[0]])
        if token == eos:
            return
        yield token


def groups(
    lengths: Sequence[int],
    *,
    max_tokens: int,
    max_rows: int = 64,
    new: Sequence[int] | None = None,
    each: int = 1,
) -> list[list[int]]:
    """Return batches of prompts of like length, longest first, under a budget of positions.

    Args:
        lengths: of the prompts.
        max_tokens: rows times positions of a batch; a row that is longer is a batch of its own.
        max_rows: prompts of a batch.
        new: most tokens after each prompt; default: none. A batch is as long as its longest prompt
            and its most new tokens together.
        each: rows that a prompt becomes: beams, candidates, the twins of guidance.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    while order:
        rows, most = 0, 0
        for index in order[:max_rows]:
            most = max(most, 0 if new is None else new[index])
            if rows and (rows + 1) * each * (lengths[order[0]] + most) > max_tokens:
                break
            rows += 1
        batches.append(order[:rows])
        order = order[rows:]
    return batches


class _Batch:
    """Prompts, their caps, and what has been chosen for them."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Example],
        *,
        allowed: Bool[Tensor, "V"],
        eos: int,
        decoding: Decoding,
        levels: Levels | None,
        nulls: Sequence[Example] | None,
    ) -> None:
        if not bool(allowed[eos]):
            raise ValueError(f"the end of sequence, token {eos}, is not allowed")
        self._decoding = decoding
        self.stepper = open_stepper(
            prepare(model),
            prompts,
            allowed=allowed,
            nulls=nulls,
            guidance=decoding.guidance,
            levels=levels,
        )
        self.eos = int(allowed[:eos].sum())
        """Its column."""
        self.limits = torch.tensor(
            [limit(len(prompt), decoding, context=model.config.context) for prompt in prompts],
            device=self.stepper.tokens.device,
        )
        """Most tokens of each prompt."""

    def steps(self, generators: Sequence[np.random.Generator] | None) -> Iterator[Int[Tensor, "R"]]:
        """Choose token after token; yield the columns of the rows that are still in the batch."""
        count, most, device = len(self.limits), int(self.limits.max()), self.limits.device
        uniforms = self._uniforms(generators, most)
        self._history = torch.full((count, most), self.eos, device=device)
        self._log_p = torch.zeros(count, device=device)
        self._lengths = torch.zeros(count, dtype=torch.long, device=device)
        rows = torch.arange(count, device=device)
        done = torch.zeros(count, dtype=torch.bool, device=device)
        limits = self.limits
        logits = self.stepper.start()
        for step in range(most):
            logits = constrain(
                logits, self._history[rows, :step], eos=self.eos, decoding=self._decoding
            )
            log_p = logits.log_softmax(-1)
            drawn = None if uniforms is None else uniforms[rows, step]
            columns = choose(log_p, decoding=self._decoding, uniforms=drawn)
            columns = columns.masked_fill_(done, self.eos)
            self._history[rows, step] = columns
            gained = log_p.gather(1, columns[:, None])[:, 0]
            self._log_p[rows] += gained.masked_fill_(done, 0.0)
            self._lengths[rows] += ~done
            yield columns
            done = done | (columns == self.eos) | (limits <= step + 1)
            finished = int(done.sum())
            if finished == len(done):
                return
            if finished > SPARE * len(done):
                going = (~done).nonzero()[:, 0]
                self.stepper.select(going)
                rows, columns, limits = rows[going], columns[going], limits[going]
                done = done[going]
            logits = self.stepper.step(columns)

    def results(self) -> list[Hypothesis]:
        """Return what `steps` has chosen."""
        found: list[Hypothesis] = []
        for columns, length, log_p in zip(
            self._history.tolist(), self._lengths.tolist(), self._log_p.tolist(), strict=True
        ):
            truncated = columns[length - 1] != self.eos
            kept = columns[: length if truncated else length - 1]
            found.append(self.hypothesis(kept, log_p=log_p, truncated=truncated))
        return found

    def delayed(
        self, stepper: DelayedStepper, generators: Sequence[np.random.Generator] | None
    ) -> list[Hypothesis]:
        """Return the hypotheses of several streams."""
        most = int(self.limits.max()) * stepper.streams
        found = DelayedSearch(
            stepper, decoding=self._decoding, eos=self.eos, limits=self.limits
        ).run(self._uniforms(generators, most))
        return [
            Hypothesis(
                tokens=stepper.tokens[one.columns].tolist(),
                score=one.score,
                truncated=one.truncated,
            )
            for one in found
        ]

    def hypothesis(self, columns: list[int], *, log_p: float, truncated: bool) -> Hypothesis:
        """Return ``columns`` as tokens, with their score."""
        length = len(columns) + (not truncated)
        return Hypothesis(
            tokens=self.stepper.tokens[columns].tolist(),
            score=log_p / length**self._decoding.length_penalty,
            truncated=truncated,
            log_p=log_p,
        )

    def _uniforms(
        self, generators: Sequence[np.random.Generator] | None, most: int
    ) -> Tensor | None:
        if self._decoding.temperature == 0:
            return None
        if generators is None:
            generators = [seeding.stream(0, "generation", n) for n in range(len(self.limits))]
        drawn = np.stack([generator.random(most) for generator in generators])
        return torch.from_numpy(drawn).to(self.limits.device)


def limit(length: int, decoding: Decoding, *, context: int) -> int:
    """Return the cap of new tokens after a prompt."""
    rest = context - length
    if rest < 1:
        raise ConfigError(
            f"a prompt of {length} tokens leaves no room in the model's context of {context}"
        )
    by_ratio = int(decoding.max_ratio * length) + 10 if decoding.max_ratio else rest
    return min(rest, decoding.max_tokens, by_ratio)
