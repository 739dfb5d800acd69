"""Searches that follow several tokens at once: beams of hypotheses, and codes with a delay.

Both drive a `unitone.lm.decoder.stepping.Stepper` and return hypotheses in columns.

Axes: U utterances still searched, K beams of each, A columns (the tokens that may be generated),
R rows, T steps, Q streams.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.sampling import choose, constrain
from unitone.lm.decoder.stepping import DelayedStepper, Stepper
from unitone.lm.decoder.template import Decoding


@dataclass(frozen=True, kw_only=True)
class ColumnHypothesis:
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
        self._found: list[list[ColumnHypothesis]] = [[] for _ in self._limits]
        self._open = list(range(len(self._limits)))

    def run(self) -> list[ColumnHypothesis]:
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

    @property
    def found(self) -> list[list[ColumnHypothesis]]:
        """All hypotheses of each prompt that were complete when `run` ended, the best first."""
        return [sorted(found, key=_rank, reverse=True) for found in self._found]

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
            ColumnHypothesis(columns=columns, log_p=log_p, score=score, truncated=truncated)
        )

    def _score(self, log_p: float, length: int) -> float:
        return float(log_p / length**self._decoding.length_penalty)


def _rank(found: ColumnHypothesis) -> tuple[bool, float]:
    return not found.truncated, found.score


class DelayedSearch:
    """Greedy or sampled search over codes with a delay: a step chooses a token for each stream.

    Stream 0 chooses among its task's tokens, the codes of level 0 and the end. Stream q has a code
    wherever stream 0 had one q steps before, so the streams begin one after the other and, after
    the end in stream 0, end one after the other. The rules of repetition and of the least length
    are those of level 0.
    """

    def __init__(
        self,
        stepper: DelayedStepper,
        *,
        decoding: Decoding,
        eos: int,
        limits: Int[Tensor, "R"],
    ) -> None:
        """``eos`` is a column, ``limits`` the most positions of each row, the tail included."""
        self._stepper, self._decoding, self._eos, self._limits = stepper, decoding, eos, limits
        self._streams = stepper.streams
        self._before = stepper.given.shape[1]
        """Positions of the history that the prompts hold."""

    def run(self, uniforms: Float[Tensor, "R N"] | None) -> list[ColumnHypothesis]:
        """Return what each row says; ``uniforms`` are for drawing, Q a step."""
        count, most, device = len(self._limits), int(self._limits.max()), self._limits.device
        empty = torch.full((count, most, self._streams), NONE, device=device)
        history = torch.cat((self._stepper.given, empty), dim=1)
        log_p = torch.zeros(count, most, self._streams, device=device)
        lengths = torch.zeros(count, dtype=torch.long, device=device)
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        rows = torch.arange(count, device=device)
        logits = self._stepper.start()
        for step in range(most):
            at = self._before + step
            drawn = None
            if uniforms is not None:
                drawn = uniforms[rows, step * self._streams : (step + 1) * self._streams]
            cells, gained = self._choose(logits, history[rows, : at + 1], ended[rows], drawn)
            history[rows, at], log_p[rows, step] = cells, gained
            lengths[rows] = step + 1
            ended[rows] |= cells[:, 0] == self._eos
            over = ended[rows] & ~self._pending(history[rows, : at + 1])
            going = (~(over | (self._limits[rows] <= step + 1))).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(rows):
                self._stepper.select(going)
                rows, cells = rows[going], cells[going]
            logits = self._stepper.step(cells)
        return [
            self._found(history[row, : self._before + length], log_p[row], bool(ended[row]))
            for row, length in enumerate(lengths.tolist())
        ]

    def _choose(
        self,
        logits: Float[Tensor, "R A"],
        history: Int[Tensor, "R S Q"],
        ended: Bool[Tensor, "R"],
        uniforms: Float[Tensor, "R Q"] | None,
    ) -> tuple[Int[Tensor, "R Q"], Float[Tensor, "R Q"]]:
        """Return the columns of the last position, still empty, and their log-probabilities."""
        cells = torch.full_like(history[:, -1], NONE)
        gained = torch.zeros(cells.shape, device=cells.device)
        for stream in range(self._streams):
            first = 0
            if stream:
                wanted = self._coded(history[:, history.shape[1] - 1 - stream])
                first, last = self._stepper.columns_of[stream]
                own = logits[:, first:last]
            else:
                wanted = ~ended
                own = logits.masked_fill(self._stepper.level > 0, -torch.inf)
                level0 = history[:, self._before : -1, 0]
                level0 = torch.where(level0 == NONE, self._eos, level0)
                own = constrain(own, level0, eos=self._eos, decoding=self._decoding)
            own = own.log_softmax(-1)
            drawn = None if uniforms is None else uniforms[:, stream]
            columns = choose(own, decoding=self._decoding, uniforms=drawn)
            cells[:, stream] = torch.where(wanted, first + columns, NONE)
            gained[:, stream] = torch.where(wanted, own.gather(1, columns[:, None])[:, 0], 0.0)
        return cells, gained

    def _coded(self, cells: Int[Tensor, "R *S Q"]) -> Bool[Tensor, "R *S"]:
        """Tell at which positions a frame begins."""
        first = cells[..., 0]
        return (first != NONE) & (self._stepper.level[first.clamp(min=0)] == 0)

    def _pending(self, history: Int[Tensor, "R S Q"]) -> Bool[Tensor, "R"]:
        """Tell which rows have frames that are not whole."""
        return self._coded(history[:, history.shape[1] - self._streams + 1 :]).any(-1)

    def _found(
        self, history: Int[Tensor, "S Q"], log_p: Float[Tensor, "T Q"], ended: bool
    ) -> ColumnHypothesis:
        """Put the frames of a row together; what is not whole, at its cap, is left out."""
        whole = len(history) - self._streams + 1
        coded = self._coded(history[None])[0].tolist()
        diagonal = range(self._streams)
        columns: list[int] = []
        for place, frame in enumerate(coded):
            if frame and place < whole:
                columns += [int(history[place + level, level]) for level in diagonal]
            elif not frame and int(history[place, 0]) not in (NONE, self._eos):
                columns.append(int(history[place, 0]))
        chosen = int((history[self._before :] != NONE).sum())
        total = float(log_p.sum())
        return ColumnHypothesis(
            columns=columns,
            log_p=total,
            score=total / max(chosen, 1) ** self._decoding.length_penalty,
            truncated=not ended or bool(self._pending(history[None])[0]),
        )
