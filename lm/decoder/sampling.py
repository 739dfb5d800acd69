"""Which token comes next: constraints on the logits, and greedy or drawn choice, row by row.

Axes: R rows, A columns (the tokens that may be generated), T steps so far.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitone.lm.decoder.template import Decoding


def constrain(
    logits: Float[Tensor, "R A"],
    history: Int[Tensor, "R T"],
    *,
    eos: int,
    decoding: Decoding,
) -> Float[Tensor, "R A"]:
    """Return the logits under the rules of repetition and of the least length.

    Args:
        logits: of the next token.
        history: columns emitted so far.
        eos: column of the end of sequence.
        decoding: the rules.
    """
    if decoding.repetition_penalty != 1.0 and history.shape[1]:
        seen = logits.gather(1, history)
        weaker = torch.where(
            seen > 0, seen / decoding.repetition_penalty, seen * decoding.repetition_penalty
        )
        logits = logits.scatter(1, history, weaker)
    if history.shape[1] < decoding.min_tokens:
        logits = logits.clone()
        logits[:, eos] = -torch.inf
    if 0 < decoding.no_repeat <= history.shape[1]:
        logits = _without_repeats(logits, history, size=decoding.no_repeat, eos=eos)
    return logits


def _without_repeats(logits: Tensor, history: Tensor, *, size: int, eos: int) -> Tensor:
    runs = history.unfold(1, size, 1)
    last = history[:, None, history.shape[1] - size + 1 :]
    again = (runs[..., :-1] == last).all(-1)
    ends = torch.where(again, runs[..., -1], logits.shape[1])
    wide = torch.nn.functional.pad(logits, (0, 1))  # a column for the runs that aren't the last
    kept = wide.scatter(1, ends, -torch.inf)[:, :-1].clone()
    stuck = (kept == -torch.inf).all(-1)  # nothing is left: the sequence ends
    kept[:, eos] = torch.where(stuck, 0.0, kept[:, eos])
    return kept


def choose(
    log_p: Float[Tensor, "R A"], *, decoding: Decoding, uniforms: Float[Tensor, "R"] | None
) -> Int[Tensor, "R"]:
    """Return a column for each row: the likeliest, or drawn with one uniform number in [0, 1).

    Temperature first, then ``top_k``, then ``top_p`` (nucleus, Holtzman et al. 2020, arXiv
    1904.09751). A row's draw depends on its own logits and number alone.
    """
    if uniforms is None:
        return log_p.argmax(-1)
    scaled = log_p / decoding.temperature
    if 0 < decoding.top_k < scaled.shape[1]:
        least = scaled.topk(decoding.top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    p, columns = scaled.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    cumulated = p.cumsum(-1)
    if decoding.top_p < 1.0:
        p = p.masked_fill(cumulated - p >= decoding.top_p, 0.0)
        cumulated = p.cumsum(-1)
    target = uniforms[:, None] * cumulated[:, -1:]
    places = torch.searchsorted(cumulated, target, right=True)
    last = (p > 0).sum(-1, keepdim=True) - 1  # rounding must not pick what is excluded
    return columns.gather(1, places.minimum(last))[:, 0]
