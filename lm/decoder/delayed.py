"""Greedy or sampled search over codes with a delay: every step chooses a token for each stream.

Stream 0 chooses among its task's tokens, the codes of level 0 and the end. Stream q has a code
wherever stream 0 had one q steps before, so the streams begin one after the other and, behind the
end in stream 0, end one after the other.

Axes: R rows, T steps, Q streams, A columns (the tokens that may be generated).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unitone.lm.decoder.beam import Found
from unitone.lm.decoder.levels import DelayedStepper
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.sampling import choose, constrain
from unitone.lm.decoder.template import Decoding


class DelayedSearch:
    """The rules of repetition and of the least length are those of level 0."""

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

    def run(self, uniforms: Float[Tensor, "R N"] | None) -> list[Found]:
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
                said = history[:, self._before : -1, 0]
                said = torch.where(said == NONE, self._eos, said)
                own = constrain(own, said, eos=self._eos, decoding=self._decoding)
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
    ) -> Found:
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
        return Found(
            columns=columns,
            log_p=total,
            score=total / max(chosen, 1) ** self._decoding.length_penalty,
            truncated=not ended or bool(self._pending(history[None])[0]),
        )
