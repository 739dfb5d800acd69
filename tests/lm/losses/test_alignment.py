"""Alignments against all paths of small sizes, and what every path has to be."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unitone.lm.losses import alignment

SIZES = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=4)


def drawn(sizes: list[tuple[int, int]], seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    tokens = torch.tensor([size for size, _ in sizes])
    frames = torch.tensor([size + more for size, more in sizes])
    return tokens, frames, torch.Generator().manual_seed(seed)


def all_durations(tokens: int, frames: int) -> list[list[int]]:
    cuts = itertools.combinations(range(1, frames), tokens - 1)
    return [[b - a for a, b in itertools.pairwise((0, *cut, frames))] for cut in cuts]


def score_of(scores: Tensor, durations: list[int]) -> float:
    places = torch.tensor(durations).cumsum(0).tolist()
    starts = [0, *places[:-1]]
    return sum(
        float(scores[s, a:b].sum()) for s, (a, b) in enumerate(zip(starts, places, strict=True))
    )


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 999))
def test_monotonic_search_finds_the_best_of_all_paths(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    tokens, frames, generator = drawn(sizes, seed)
    scores = torch.randn(len(sizes), int(tokens.max()), int(frames.max()), generator=generator)
    found = alignment.monotonic(scores, tokens, frames)
    for row, (count, length) in enumerate(zip(tokens.tolist(), frames.tolist(), strict=True)):
        mine = found[row].tolist()
        assert min(mine[:count]) >= 1
        assert mine[count:] == [0] * (len(mine) - count)
        assert sum(mine) == length
        best = max(score_of(scores[row], one) for one in all_durations(count, length))
        assert score_of(scores[row], mine[:count]) == pytest.approx(best, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 999))
def test_the_best_path_of_ctc_is_the_best_of_all(sizes: list[tuple[int, int]], seed: int) -> None:
    tokens, frames, generator = drawn(sizes, seed)
    text = torch.randint(1, 4, (len(sizes), int(tokens.max())), generator=generator)
    frames = frames + alignment.repeats(text, tokens)
    log_p = torch.randn(len(sizes), int(frames.max()), 4, generator=generator).log_softmax(-1)
    found = alignment.best_path(log_p, text, tokens, frames)
    for row, (count, length) in enumerate(zip(tokens.tolist(), frames.tolist(), strict=True)):
        wanted = text[row, :count].tolist()
        mine = [0 if at < 0 else int(text[row, at]) for at in found[row, :length].tolist()]
        assert spelled(mine) == wanted
        assert set(found[row, length:].tolist()) <= {-1}
        best = max(
            sum(float(log_p[row, t, one]) for t, one in enumerate(path))
            for path in itertools.product(range(4), repeat=length)
            if spelled(path) == wanted
        )
        mine_score = sum(float(log_p[row, t, one]) for t, one in enumerate(mine))
        assert mine_score == pytest.approx(best, abs=1e-4)
    durations = alignment.durations_of(found, frames, text.shape[1])
    assert durations.sum(dim=1).tolist() == frames.tolist()
    assert all(
        min(row[:n]) >= 1 for row, n in zip(durations.tolist(), tokens.tolist(), strict=True)
    )


def spelled(path: "list[int] | tuple[int, ...]") -> list[int]:
    return [one for one, _ in itertools.groupby(path) if one]


@given(sizes=SIZES)
def test_uniform_durations_differ_by_one_at_most(sizes: list[tuple[int, int]]) -> None:
    tokens, frames, _ = drawn(sizes, 0)
    found = alignment.uniform(tokens, frames)
    for row, count in enumerate(tokens.tolist()):
        mine = found[row].tolist()
        assert sum(mine) == int(frames[row])
        assert max(mine[:count]) - min(mine[:count]) <= 1
        assert sum(mine[count:]) == 0


def test_the_diagonal_is_likeliest_where_tokens_and_frames_meet() -> None:
    prior = alignment.diagonal(torch.tensor([4]), torch.tensor([8]))[0]
    assert prior.argmax(dim=0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    found = alignment.monotonic(prior[None], torch.tensor([4]), torch.tensor([8]))
    assert found.tolist() == [[2, 2, 2, 2]]


def test_frames_are_told_their_token() -> None:
    durations = torch.tensor([[2, 1, 3], [1, 1, 0]])
    found = alignment.token_of_frame(durations, 6)
    assert found[0].tolist() == [0, 0, 1, 2, 2, 2]
    assert found[1, :2].tolist() == [0, 1]


def test_impossible_posteriors_leave_a_path() -> None:
    scores = torch.full((1, 3, 5), -torch.inf)
    found = alignment.monotonic(scores, torch.tensor([3]), torch.tensor([5]))
    assert found.sum() == 5
    assert found.min() >= 1


@pytest.mark.parametrize(("tokens", "frames"), [(3, 2), (0, 2)])
def test_more_tokens_than_frames_are_refused(tokens: int, frames: int) -> None:
    message = f"row 0: {tokens} tokens can't be aligned with {frames} frames"
    with pytest.raises(ValueError, match=message):
        alignment.monotonic(torch.zeros(1, 3, 2), torch.tensor([tokens]), torch.tensor([frames]))


def test_no_text_has_no_repeats() -> None:
    assert alignment.repeats(
        torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0])
    ).tolist() == [0, 0]
