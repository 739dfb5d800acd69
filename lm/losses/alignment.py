"""Which frames belong to which token: monotonic alignment search, and CTC's best path.

Monotonic alignment search (Kim et al. 2020, Glow-TTS, arXiv 2005.11129, §3.2) gives every token one
or more frames; CTC's best path (Graves et al. 2006) has blanks between them, which go to the token
before. Both are dynamic programs over time, vectorized over rows and tokens, in plain PyTorch.

Axes: B rows, S tokens, T frames, C classes (0 is the blank).
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

LOWEST = -1e4
"""Scores are at least this, so that sums stay finite in float32."""


def monotonic(
    scores: Float[Tensor, "B S T"], tokens: Int[Tensor, "B"], frames: Int[Tensor, "B"]
) -> Int[Tensor, "B S"]:
    """Return how many frames each token has, 1 or more, so that the sum of the scores is highest.

    Args:
        scores: of token s at frame t; what is beyond a row's ``tokens`` and ``frames`` is ignored.
        tokens: of each row; at least 1.
        frames: of each row.

    Raises:
        ValueError: a row has more tokens than frames.
    """
    _check(tokens, frames)
    rows, most, length = scores.shape
    scores = scores.float()
    if not scores.min() > LOWEST:  # also where it is no number
        scores = scores.clamp(min=LOWEST)
    moved = torch.zeros(length, rows, most, dtype=torch.bool, device=scores.device)
    by_frame = scores.permute(2, 0, 1)
    if by_frame.stride(-1) != 1:  # as a matrix: PyTorch transposes those in blocks
        by_frame = scores.reshape(rows * most, length).t().contiguous().view(length, rows, most)
    # two buffers by turns, with a column before the first token: what came from it is a view
    buffers = [scores.new_full((rows, most + 1), -torch.inf) for _ in range(2)]
    buffers[0][:, 1] = scores[:, 0, 0]
    stay, come = [one[:, 1:] for one in buffers], [one[:, :-1] for one in buffers]
    steps = zip(by_frame[1:].unbind(), moved[1:].unbind(), strict=True)
    for number, (gained, came) in enumerate(steps):
        now, then = number % 2, 1 - number % 2
        torch.gt(come[now], stay[now], out=came)
        torch.maximum(come[now], stay[now], out=stay[then]).add_(gained)
    return _durations(moved.cpu().numpy(), tokens, frames).to(scores.device)


def _durations(
    moved: np.ndarray, tokens: Int[Tensor, "B"], frames: Int[Tensor, "B"]
) -> Int[Tensor, "B S"]:
    """Walk back from the last token at the last frame; ``moved[t, b, s]``: from s - 1."""
    length, rows, most = moved.shape
    first = np.arange(rows) * most  # of each row, where a frame's rows are one
    at, flat = first + tokens.cpu().numpy() - 1, moved.reshape(length, -1)
    inside = np.arange(length)[:, None] < frames.cpu().numpy()
    path = np.empty((length, rows), np.int64)
    for frame in range(length - 1, -1, -1):
        path[frame] = at
        at = at - (flat[frame].take(at) & inside[frame])
    durations = np.bincount(path[inside], minlength=rows * most)
    return torch.from_numpy(durations.reshape(rows, most))


def best_path(
    log_p: Float[Tensor, "B T C"],
    text: Int[Tensor, "B S"],
    tokens: Int[Tensor, "B"],
    frames: Int[Tensor, "B"],
) -> Int[Tensor, "B T"]:
    """Return CTC's likeliest path: the place in ``text`` of each frame's token, -1 at blanks.

    Frames after a row's last are -1.

    Args:
        log_p: log-probabilities of the classes.
        text: class of each token, from 1.
        tokens: of each row; at least 1.
        frames: of each row.

    Raises:
        ValueError: a row's text, with a blank between equal neighbors, has not the frames.
    """
    _check(tokens + repeats(text, tokens), frames)
    rows, length, _ = log_p.shape
    states = text.new_zeros(rows, 2 * text.shape[1] + 1)
    states[:, 1::2] = text
    emitted = log_p.float().clamp(min=LOWEST).transpose(0, 1)
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 2:] = (states[:, 2:] != 0) & (states[:, 2:] != states[:, :-2])
    best = emitted.new_full(states.shape, -torch.inf)
    best[:, :2] = emitted[0].gather(1, states[:, :2])
    came = torch.zeros(length, *states.shape, dtype=torch.int8, device=log_p.device)
    for frame in range(1, length):
        one, two = _shifted(best, 1), _shifted(best, 2).masked_fill(~skips, -torch.inf)
        highest, steps = torch.stack((best, one, two)).max(dim=0)
        came[frame] = steps
        inside = (frame < frames)[:, None]
        best = torch.where(inside, highest + emitted[frame].gather(1, states), best)
    ends = torch.stack((2 * tokens - 1, 2 * tokens), dim=1)
    at = ends.gather(1, best.gather(1, ends).argmax(dim=1, keepdim=True))[:, 0]
    path = _walked(came.cpu().numpy(), at.cpu().numpy(), frames.cpu().numpy())
    return torch.from_numpy(path).to(log_p.device)


def _shifted(best: Float[Tensor, "B N"], by: int) -> Float[Tensor, "B N"]:
    return torch.nn.functional.pad(best[:, :-by], (by, 0), value=-torch.inf)


def _walked(came: np.ndarray, at: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Walk back from state ``at`` at the last frame; odd states are tokens."""
    length, rows, _ = came.shape
    path, number = np.full((rows, length), -1, np.int64), np.arange(rows)
    for frame in range(length - 1, -1, -1):
        inside = frame < frames
        path[:, frame] = np.where(inside & (at % 2 == 1), at // 2, -1)
        at = at - np.where(inside, came[frame, number, at], 0)
    return path


def durations_of(path: Int[Tensor, "B T"], frames: Int[Tensor, "B"], most: int) -> Tensor:
    """Return the frames (B, S) of each of ``most`` tokens of a path; blanks go to the token before.

    Those at the beginning go to the first token.
    """
    reached = path.clamp(min=0).cummax(dim=1).values
    inside = torch.arange(path.shape[1], device=path.device) < frames[:, None]
    return path.new_zeros(len(path), most).scatter_add_(1, reached, inside.long())


def uniform(
    tokens: Int[Tensor, "B"], frames: Int[Tensor, "B"], most: int | None = None
) -> Int[Tensor, "B S"]:
    """Return durations as equal as whole frames can be, of ``most`` tokens.

    Raises:
        ValueError: a row has more tokens than frames.
    """
    _check(tokens, frames)
    count = int(tokens.max()) if most is None else most
    edges = torch.arange(count + 1, device=tokens.device)[None]
    places = edges.minimum(tokens[:, None]) * frames[:, None] // tokens[:, None]
    return places.diff(dim=1)


def diagonal(
    tokens: Int[Tensor, "B"],
    frames: Int[Tensor, "B"],
    *,
    width: float = 0.2,
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "B S T"]:
    """Return a log-prior for alignments near the diagonal: 0 on it, -1/2 at ``width`` off it.

    ``width`` is a share of the utterance; ``size`` is (S, T), as of the longest row. What is beyond
    a row's tokens and frames means nothing.
    """
    most, longest = size or (int(tokens.max()), int(frames.max()))
    s = (torch.arange(most, device=tokens.device) + 0.5) / tokens[:, None]
    t = (torch.arange(longest, device=frames.device) + 0.5) / frames[:, None]
    return -0.5 * ((s[:, :, None] - t[:, None, :]) / width) ** 2


def token_of_frame(durations: Int[Tensor, "B S"], length: int) -> Int[Tensor, "B T"]:
    """Return which token each of ``length`` frames belongs to; after the last, the last one."""
    ends = durations.cumsum(dim=1)
    frames = torch.arange(length, device=durations.device).expand(len(durations), -1)
    found = torch.searchsorted(ends, frames.contiguous(), right=True)
    return found.clamp(max=durations.shape[1] - 1)


def repeats(text: Int[Tensor, "B S"], tokens: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Return how many tokens are the same as the one before: CTC needs a blank between them."""
    inside = torch.arange(text.shape[1], device=text.device)[1:] < tokens[:, None]
    return ((text[:, 1:] == text[:, :-1]) & inside).sum(dim=1)


def _check(tokens: Int[Tensor, "B"], frames: Int[Tensor, "B"]) -> None:
    wrong = ((tokens > frames) | (tokens < 1)).nonzero()[:, 0].tolist()
    if wrong:
        row = wrong[0]
        raise ValueError(
            f"row {row}: {int(tokens[row])} tokens can't be aligned with {int(frames[row])} frames"
        )
