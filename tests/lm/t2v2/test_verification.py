"""Planted faults are heard and repaired, what is right is left alone, the rest is marked."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.lm.conftest import UNITS, World
from tests.lm.t2v2.conftest import TABLE
from unitone.errors import ConfigError
from unitone.lm import decode, family, speak
from unitone.lm.family import LoadedModel
from unitone.lm.t2v2 import decoding
from unitone.lm.t2v2.decoding import Synthesis
from unitone.lm.t2v2.faults import KINDS, Kind, plant
from unitone.lm.t2v2.verification import (
    Span,
    Verified,
    Wanted,
    disagreements,
    matches,
    posteriors,
    verified,
)
from unitone.lm.t2v2.words import edges

WORDS = [(0, 3), (3, 6)]
"""Of the units of every sentence."""
HOW = Synthesis(passes=4, guidance=1.0, twin="current", temperature=0.0)


def spell(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", "ignore")


@pytest.fixture(scope="session")
def loaded(learnt: Path) -> LoadedModel:
    return family.load(learnt / "last", device="cpu")


def wanted_of(text: str, frames: int) -> Wanted:
    ids = torch.tensor([*text.encode()])
    durations = torch.full((len(ids),), frames)
    return Wanted(text=ids, durations=durations, cuts=edges(ids.tolist(), spell))


def heard_of(said: str) -> Tensor:
    """Return log-probabilities of frames that say one character each, ``_`` is a blank."""
    classes = torch.tensor([0 if one == "_" else ord(one) + 1 for one in said])
    return torch.nn.functional.one_hot(classes, 257).float().mul(20).log_softmax(-1)


@pytest.mark.parametrize(
    ("said", "spans"),
    [
        ("oonnee twoo", []),
        ("oonnee  twwwwwwwwwwwwwwwwwwwwwwwwwoo", [(4, 7, 8, 36)]),  # stands still
        ("oonnee txoo", [(4, 7, 7, 11)]),
        ("oonnee", [(3, 7, 6, 6)]),  # cut off
        ("xyxoonnee twoo", [(0, 3, 0, 9)]),  # a burst
        ("oonnee twoo_twoo", [(3, 4, 6, 12)]),  # twice
        ("twoo", [(0, 4, 0, 0)]),
    ],
)
def test_spans_are_whole_words_and_their_frames(
    said: str, spans: list[tuple[int, int, int, int]]
) -> None:
    found = disagreements(heard_of(said), wanted_of("one two", 2))
    assert [(one.first, one.last) for one in found] == [one[:2] for one in spans]
    for one, (_, _, start, end) in zip(found, spans, strict=True):
        assert one.start <= start <= end <= one.end


@given(wanted=st.text("abc", max_size=8), read=st.text("abc", max_size=8))
def test_matches_are_those_of_the_fewest_edits(wanted: str, read: str) -> None:
    found = matches([*wanted.encode()], [*read.encode()])
    assert all(wanted[a] == read[b] for a, b in found)
    ends = [(-1, -1), *found, (len(wanted), len(read))]
    pairs = itertools.pairwise(ends)
    edits = sum(max(b[0] - a[0], b[1] - a[1]) - 1 for a, b in pairs)
    distance = np.arange(len(read) + 1)
    for row, one in enumerate(wanted, start=1):
        before, distance = distance, np.zeros_like(distance)
        distance[0] = row
        for column, other in enumerate(read, start=1):
            distance[column] = min(
                before[column] + 1, distance[column - 1] + 1, before[column - 1] + (one != other)
            )
    assert edits == distance[-1]


def planted(kind: Kind, number: int) -> list[int]:
    rng = np.random.default_rng(number)
    units = np.array(TABLE[number]["units"])
    made = plant(units, kind, rng, num_units=UNITS, words=WORDS, deduplicated=True)
    return [int(one) for one in made]


def checked(loaded: LoadedModel, number: int, units: list[int], *, rounds: int = 2) -> Verified:
    model, ids = loaded.model, torch.tensor([*TABLE[number]["text"].encode()])
    unknown = {name: torch.tensor([-1]) for name in ("language", "speaker")}
    with torch.inference_mode():
        size = torch.tensor([len(ids)])
        durations = decoding.lengths(model, ids[None], size, unknown, scale=1.0)[0]
    wanted = Wanted(text=ids, durations=durations, cuts=edges(ids.tolist(), spell))
    generator = np.random.default_rng(0)
    return verified(
        model, torch.tensor(units), wanted, unknown, how=HOW, generator=generator, rounds=rounds
    )


def test_clean_units_are_left_alone(loaded: LoadedModel) -> None:
    for number, row in enumerate(TABLE):
        found = checked(loaded, number, row["units"])
        assert (found.wrong, found.units, found.repairs) == ((), row["units"], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_faults_are_heard_and_repaired(loaded: LoadedModel, kind: Kind) -> None:
    faulty = [(number, planted(kind, number)) for number in range(len(TABLE))]
    faulty = [(number, units) for number, units in faulty if units != TABLE[number]["units"]]
    assert len(faulty) > 25
    found = [checked(loaded, number, units, rounds=0).wrong for number, units in faulty]
    assert np.mean([bool(wrong) for wrong in found]) >= 0.95
    repaired = [checked(loaded, number, units) for number, units in faulty]
    assert np.mean([not one.wrong for one in repaired]) >= 0.9


def test_what_is_right_stays_to_the_unit(loaded: LoadedModel) -> None:
    kept = []
    for number, row in enumerate(TABLE):
        units = [*row["units"][:4], *row["units"][3:]]  # the second word begins twice
        found = checked(loaded, number, units)
        kept.append(found.units[:2] == row["units"][:2])
        assert not found.repairs or found.units[:2] == row["units"][:2] or len(found.wrong) == 0
    assert np.mean(kept) >= 0.9


def test_what_can_not_be_repaired_is_marked(loaded: LoadedModel) -> None:
    found = checked(loaded, 0, [1, 2, 3], rounds=0)
    assert found.wrong
    assert (found.units, found.repairs) == ([1, 2, 3], 0)
    assert all(isinstance(one, Span) for one in found.wrong)


@settings(max_examples=30, deadline=None)
@given(units=st.lists(st.integers(0, UNITS - 1), min_size=1, max_size=30), number=st.integers(0, 9))
def test_any_units_end_in_units(loaded: LoadedModel, units: list[int], number: int) -> None:
    before = checked(loaded, number, units, rounds=0)
    after = checked(loaded, number, units, rounds=1)
    assert all(0 <= one < UNITS for one in after.units)
    assert sum(one.last - one.first for one in after.wrong) <= sum(
        one.last - one.first + 1 for one in before.wrong
    )
    heard = posteriors(loaded.model, torch.tensor([after.units]), torch.tensor([len(after.units)]))
    assert heard.shape[1] == 2 * len(after.units)


@pytest.mark.parametrize("kind", KINDS)
@given(count=st.integers(4, 40), seed=st.integers(0, 99), deduplicated=st.booleans())
def test_a_planted_fault_is_of_its_kind(
    kind: Kind, count: int, seed: int, deduplicated: bool
) -> None:
    units = np.arange(count)
    made = plant(
        units, kind, np.random.default_rng(seed), num_units=count, deduplicated=deduplicated
    )
    assert set(made.tolist()) <= set(range(count))
    shorter = kind in ("dropped_word", "truncation")
    assert len(made) < count if shorter else len(made) > count
    with pytest.raises(ValueError, match="3 units are too few"):
        plant(units[:3], kind, np.random.default_rng(0), num_units=3)


def test_the_commands_verify(
    learnt: Path, world: World, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "h.jsonl"
    run = ["--model", str(learnt / "last"), "--task", "tts", "--device", "cpu", "--verify"]
    assert decode.main([*run, "--tokens", str(learnt.parent / "tokens"), "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert np.mean([line["unrepaired"] for line in lines]) < 0.1
    assert [line["id"] for line in lines] == [row["id"] for row in TABLE]
    words = ["sentence 3", "--out", str(tmp_path / "a.wav"), "--verify", "--device", "cpu"]
    assert speak.main([*words, "--model", str(spoken)]) == 0
    assert "the model hears something else in it" in capsys.readouterr().err  # nothing is learnt
    assert speak.main([*words, "--model", str(world.model)]) == 2
    assert "a decoder-only model doesn't verify its speech" in capsys.readouterr().err


def test_only_speech_is_verified(loaded: LoadedModel) -> None:
    predictor: Any = loaded.predictor("asr")
    with pytest.raises(ConfigError, match="task asr makes no speech to verify"):
        predictor.verified([])
