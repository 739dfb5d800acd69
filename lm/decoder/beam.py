"""Beam search over a batch of prompts.

Axes: U utterances still searched, K beams of each, A columns.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from unitone.lm.decoder.sampling import constrain
from unitone.lm.decoder.stepping import Stepper
from unitone.lm.decoder.template import Decoding


@dataclass(frozen=True, kw_only=True)
class Found:
    """A hypothesis in columns."""

    columns: list[int]
    """Without the end of sequence."""
    log_p: float
    """Sum of the log-probabilities, the end of sequence's included."""
    score: float
    """``log_p`` by the number of its tokens to the power of the length penalty."""
    truncated: bool


class BeamSearch:
    """K hypotheses at a time for each prompt, all prompts in one batch.

    An utterance is finished when it has K complete hypotheses and none of its beams, divided by its
    length so far, is better than the worst of these; or at its cap. With K = 1 this is greedy
    search.
    """

    def __init__(
        self, stepper: Stepper, *, decoding: Decoding, eos: int, limits: Int[Tensor, "U"]
    ) -> None:
        """``eos`` is a column, ``limits`` the most tokens of each utterance, eos included."""
        self._stepper, self._decoding, self._eos = stepper, decoding, eos
        self._limits = limits.tolist()
        self._found: list[list[Found]] = [[] for _ in self._limits]
        self._open = list(range(len(self._limits)))

    def run(self) -> list[Found]:
        """Return the best hypothesis of each prompt; a complete one beats all truncated ones."""
        beams = self._decoding.beam
        logits = self._stepper.start()
        count, device = len(logits), logits.device
        spread = torch.arange(count, device=device).repeat_interleave(beams)
        self._stepper.select(spread)
        logits = logits[spread]
        scores = torch.full((count, beams), -torch.inf, device=device)
        scores[:, 0] = 0.0  # all beams are the same still
        history = torch.zeros((count * beams, 0), dtype=torch.long, device=device)
        while True:
            logits = constrain(logits, history, eos=self._eos, decoding=self._decoding)
            scores, rows, columns = self._extend(logits.log_softmax(-1), scores, history)
            history = torch.cat((history[rows], columns[:, None]), dim=1)
            kept = self._close(scores, history)
            if not self._open:
                return [max(found, key=_rank) for found in self._found]
            if len(kept) < len(scores):
                at = torch.tensor(kept, device=device)
                picked = (at[:, None] * beams + torch.arange(beams, device=device)).flatten()
                scores, rows, columns = scores[at], rows[picked], columns[picked]
                history = history[picked]
                self._stepper.select(rows)
            else:
                self._stepper.select(rows, same_prompts=True)
            logits = self._stepper.step(columns)

    def _extend(
        self, log_p: Tensor, scores: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Put aside the candidates that end; return the best K that go on, and where they are from.

        Each beam has one candidate that ends, so K of the best 2 K go on.
        """
        count, beams = scores.shape
        size = log_p.shape[1]
        candidates = (scores[:, :, None] + log_p.unflatten(0, (count, beams))).flatten(1)
        best, places = candidates.topk(min(2 * beams, candidates.shape[1]))
        ends = places % size == self._eos
        complete = ends[:, :beams] & (best[:, :beams] > -torch.inf)
        for utterance, rank in complete.nonzero().tolist():
            row = utterance * beams + int(places[utterance, rank]) // size
            self._add(
                self._open[utterance],
                history[row].tolist(),
                log_p=float(best[utterance, rank]),
                truncated=False,
            )
        going = best.masked_fill(ends, -torch.inf)
        if going.shape[1] < beams:
            going = torch.nn.functional.pad(going, (0, beams - going.shape[1]), value=-torch.inf)
            places = torch.nn.functional.pad(places, (0, beams - places.shape[1]))
        kept, order = going.topk(beams)
        places = places.gather(1, order)
        first = torch.arange(count, device=scores.device)[:, None] * beams
        return kept, (first + places // size).flatten(), (places % size).flatten()

    def _close(self, scores: Tensor, history: Tensor) -> list[int]:
        """Close the utterances that are finished; return which of those open stay open."""
        beams = self._decoding.beam
        length = history.shape[1]
        kept: list[int] = []
        for place, (utterance, live) in enumerate(zip(self._open, scores.tolist(), strict=True)):
            found = self._found[utterance]
            if length >= self._limits[utterance] and not found:
                self._add_truncated(utterance, live, history[place * beams :][:beams])
            done = length >= self._limits[utterance] or live[0] == -torch.inf
            if len(found) >= beams:
                worst = sorted((one.score for one in found), reverse=True)[beams - 1]
                done = done or self._score(live[0], length) <= worst
            if not done:
                kept.append(place)
        self._open = [self._open[place] for place in kept]
        return kept

    def _add_truncated(self, utterance: int, live: list[float], history: Tensor) -> None:
        for log_p, columns in zip(live, history.tolist(), strict=True):
            self._add(utterance, columns, log_p=log_p, truncated=True)

    def _add(self, utterance: int, columns: list[int], *, log_p: float, truncated: bool) -> None:
        length = len(columns) + (not truncated)
        score = self._score(log_p, length)
        self._found[utterance].append(
            Found(columns=columns, log_p=log_p, score=score, truncated=truncated)
        )

    def _score(self, log_p: float, length: int) -> float:
        return float(log_p / length**self._decoding.length_penalty)


def _rank(found: Found) -> tuple[bool, float]:
    return not found.truncated, found.score
