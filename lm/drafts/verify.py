"""Greedy search with a draft: the model reads many tokens at once, and keeps those it would write.

Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) with a whole hypothesis as the draft
(aggressive decoding, Ge et al. 2022, arXiv 2205.10350). Whatever the draft is, what comes out is
what greedy search writes, but for ties within the rounding of sums. After a token that the draft
has not, the draft goes on where its next tokens fit what was written, a few tokens at a time.

Axes: N tokens read at once, A columns (the tokens that may be generated), V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unitone.lm.decoder import generation
from unitone.lm.decoder.kernels import Model
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import Vectors
from unitone.lm.decoder.sampling import constrain
from unitone.lm.decoder.stepping import Stepper
from unitone.lm.decoder.template import Decoding

WINDOW = 16
"""Tokens of the draft that are read after a wrong one; twice as many after a pass without one."""
REACH = 8
"""Tokens of the draft that are searched for its next place, before and behind where it was."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What greedy search writes."""

    tokens: list[int]
    """Without the end of sequence."""
    score: float
    """As of `unitone.lm.decoder.generation.Hypothesis`."""
    truncated: bool
    passes: int
    """Of the model; greedy search alone takes one a token."""


class Reader(Stepper):
    """One row over a cache, which reads several tokens at once and forgets some of them again."""

    def __init__(self, model: Model, prompt: Example, *, allowed: Bool[Tensor, "V"]) -> None:
        """Lay the prompt out."""
        super().__init__(model, [prompt], allowed=allowed, nulls=None, guidance=1.0)

    def read(self, columns: Sequence[int]) -> Float[Tensor, "N A"]:
        """Put tokens after the row; return the logits of what follows each, the prompt's first."""
        new = self.tokens[torch.tensor([*columns], dtype=torch.long, device=self.tokens.device)]
        filled = self._cache.filled
        if not filled:
            states = self._model(
                torch.cat((self._tokens, new[None]), dim=1),
                vectors=self._widened(len(columns)),
                cache=self._cache,
            )
            states = states[:, self._prompt - 1 :]
        else:
            places = torch.arange(filled + len(new), device=new.device)
            mask = (places <= places[filled:, None])[None, None]
            states = self._model(
                new[None], mask=None if len(new) == 1 else mask, vectors={}, cache=self._cache
            )
        logits: Tensor = self._head(states[0]).float()
        return logits

    def keep(self, count: int) -> None:
        """Forget all tokens after the first ``count`` of the row."""
        self._cache.filled = self._prompt + count

    def _widened(self, more: int) -> dict[str, Vectors]:
        """Return the vectors of the prompt, at no place after it."""
        return {
            kind: Vectors(
                values=given.values, where=torch.nn.functional.pad(given.where, (0, more))
            )
            for kind, given in self._vectors.items()
        }


@torch.inference_mode()
def verify(
    model: Model,
    prompt: Example,
    draft: Sequence[int],
    *,
    allowed: Bool[Tensor, "V"],
    eos: int,
    decoding: Decoding,
) -> Verified:
    """Return what greedy search writes after a prompt.

    Args:
        model: what `unitone.lm.decoder.generation.prepare` returned.
        prompt: of one stream of tokens.
        draft: tokens of which some may be right; those that aren't allowed end it.
        allowed: tokens that may be generated.
        eos: token that ends a sequence.
        decoding: greedy, see `unitone.lm.drafts.predictor.require_greedy`.
    """
    reader = Reader(model, prompt, allowed=allowed)
    column_of = {token: column for column, token in enumerate(reader.tokens.tolist())}
    end = column_of[eos]
    known: list[int] = []
    for token in draft:
        if token not in column_of or token == eos:
            break
        known.append(column_of[token])
    limit = generation.limit(len(prompt), decoding, context=model.config.context)
    written: list[int] = []
    log_p, passes, place, window = 0.0, 0, 0, len(known)
    while True:
        ahead = known[place : place + min(window, limit - 1 - len(written))]
        logits = reader.read([*written[-1:], *ahead])
        passes += 1
        right, gained = _agreed(logits, written, ahead, end, decoding)
        log_p += gained
        written += right
        if written[-1] == end or len(written) >= limit:
            break
        reader.keep(len(written) - 1)  # the last one is the model's own, and not read yet
        agreed = len(right) > len(ahead)
        window = 2 * window if agreed else WINDOW
        place = _place(known, place + len(right) - 1, written)
    truncated = written[-1] != end
    kept = written if truncated else written[:-1]
    return Verified(
        tokens=reader.tokens[kept].tolist(),
        score=log_p / len(written) ** decoding.length_penalty,
        truncated=truncated,
        passes=passes,
    )


def _agreed(
    logits: Float[Tensor, "N A"],
    written: Sequence[int],
    ahead: Sequence[int],
    end: int,
    decoding: Decoding,
) -> tuple[list[int], float]:
    """Return the draft's tokens up to the first wrong one, then the model's own."""
    plain = decoding.repetition_penalty == 1.0 and not decoding.no_repeat + decoding.min_tokens
    if plain:
        log_p = logits.log_softmax(-1)
        best = log_p.max(dim=-1)
        columns = best.indices.tolist()
        count = next((n for n, one in enumerate(ahead) if one != columns[n]), len(ahead))
        return columns[: count + 1], float(best.values[: count + 1].sum())
    found: list[int] = []
    total = 0.0
    for number in range(len(ahead) + 1):
        history = torch.tensor([[*written, *found]], dtype=torch.long, device=logits.device)
        row = constrain(logits[number : number + 1], history, eos=end, decoding=decoding)
        value, column = row.log_softmax(-1).max(dim=-1)
        found.append(int(column))
        total += float(value)
        if number == len(ahead) or found[-1] != ahead[number]:
            break
    return found, total


def _place(draft: Sequence[int], expected: int, written: Sequence[int]) -> int:
    """Return where the draft goes on after what was written.

    ``expected`` is the place of the draft's token that the last one written stands for. The longest
    run of last tokens that the draft has near there decides, of equally long ones the nearest;
    where there is none, the token is one in place of another.
    """
    best, found = (0, 0), expected + 1
    for place in range(max(expected - REACH, 0), min(expected + REACH + 1, len(draft))):
        size = 0
        while size < REACH and size <= place and size < len(written):
            if draft[place - size] != written[-1 - size]:
                break
            size += 1
        rank = (size, -abs(place - expected))
        if size and rank > best:
            best, found = rank, place + 1
    return found
