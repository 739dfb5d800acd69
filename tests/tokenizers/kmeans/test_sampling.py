"""The streaming pass: goes on to the next drawn where some can't be used, and after a kill."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from unitone.corpus.reading import ReadingConfig
from unitone.errors import CorpusError
from unitone.tokenizers.kmeans import sampling
from unitone.tokenizers.kmeans.reservoir import Reservoir, even_priorities
from unitone.tokenizers.kmeans.sampling import Sample
from unitone.tokenizers.options import ExtractorConfig

Speech = Callable[..., np.ndarray]
EXTRACTOR = ExtractorConfig(ssl="mfcc")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Path:
    """Sixty recordings of 0.25 s; every third one of which is not there."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(60):
        if number % 3:
            soundfile.write(folder / f"{number}.wav", speech(0.25, number), 16_000)
    return folder


def manifest(recordings: Path, folder: Path, order: list[int]) -> Path:
    path = folder / "m.jsonl"
    lines = ({"id": f"u{n}", "audio": f"{recordings}/{n}.wav", "duration": 0.25} for n in order)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def sampled(path: Path, work: Path, *, seconds: float, workers: int = 2) -> Sample:
    reading = ReadingConfig(manifest=path, workers=workers)
    settings = sampling.Settings(
        reading=reading,
        seconds=seconds,
        extractor=EXTRACTOR,
        dim=39,
        capacity=80,
        seed=0,
        batch_seconds=0.0,
        engine="local",
        identity="test",
    )
    first = reading.draw(seconds, seed=0)
    extractor = EXTRACTOR.open()
    return sampling.load_or_draw(
        settings, extractor, first, work=work, skipped=work / "skipped.jsonl"
    )


def test_the_next_of_the_draw_stand_in_for_those_that_are_gone(
    recordings: Path, tmp_path: Path
) -> None:
    path = manifest(recordings, tmp_path, [*range(60)])
    asked = 4.0
    found = sampled(path, tmp_path / "w", seconds=asked)
    assert found.seconds >= 0.99 * asked
    assert not found.draw.whole
    plan = ReadingConfig(manifest=path).draw(asked, seed=0)
    assert found.draw.utterances[: len(plan.utterances)] == plan.utterances
    gone = [one.id for one in found.draw.utterances if int(one.id[1:]) % 3 == 0]
    lines = (tmp_path / "w" / "skipped.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(gone)
    assert len(gone) == found.num_skipped > 0

    backwards = manifest(recordings, tmp_path, [*reversed(range(60))])
    again = sampled(backwards, tmp_path / "b", seconds=asked, workers=1)
    assert np.array_equal(again.frames, found.frames)
    assert again.seconds == found.seconds


def test_a_corpus_that_has_too_little_is_taken_whole(recordings: Path, tmp_path: Path) -> None:
    path = manifest(recordings, tmp_path, [*range(60)])
    found = sampled(path, tmp_path / "w", seconds=12.0)
    assert found.draw.whole
    assert found.seconds == pytest.approx(40 * 0.25)
    assert found.num_skipped == 20
    none = manifest(recordings, tmp_path, [*range(0, 60, 3)])
    with pytest.raises(CorpusError, match=r"no utterance could be used; the first reason.*no such"):
        sampled(none, tmp_path / "n", seconds=1.0)


@pytest.mark.parametrize("blocks", [1, 4, 6])
def test_a_pass_killed_in_any_round_ends_in_the_same_sample(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    monkeypatch.setattr(sampling, "BLOCK", 4)
    monkeypatch.setattr(sampling, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(sampling, "SAVING_SHARE", 1e9)
    path = manifest(recordings, tmp_path, [*range(60)])
    expected = sampled(path, tmp_path / "whole", seconds=4.0)
    plain = sampling.SampleJob.sample
    done: list[object] = []

    def killed(*arguments: object) -> object:
        if len(done) == blocks:
            raise KeyboardInterrupt
        done.append(arguments[2])
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sampling.SampleJob, "sample", killed)
    with pytest.raises(KeyboardInterrupt):
        sampled(path, tmp_path / "killed", seconds=4.0)
    before, blocks = set(done), 10**9
    found = sampled(path, tmp_path / "killed", seconds=4.0)

    assert np.array_equal(found.frames, expected.frames)
    assert (found.seconds, found.num_skipped) == (expected.seconds, expected.num_skipped)
    assert len(set(done)) == len(done)  # no block twice
    assert before


lengths_of_utterances = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(lengths=lengths_of_utterances, seed=st.integers(0, 99), data=st.data())
def test_each_utterance_gives_the_same_share_of_its_frames(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    capacity = data.draw(st.integers(1, sum(lengths)))
    reservoir = Reservoir(capacity=capacity, dim=1, seed=seed)
    largest = []
    for number, length in enumerate(lengths):
        priorities = even_priorities(seed, str(number), length)
        frames = np.full((length, 1), number, np.float32)
        cut = data.draw(st.integers(0, length))
        for part in (slice(0, cut), slice(cut, length)):
            reservoir.add(str(number), frames[part], priorities=priorities[part])
        largest.append(np.sort(priorities))
    kept = np.bincount(reservoir.sample()[:, 0].astype(int), minlength=len(lengths))
    limit = float(np.sort(np.concatenate(largest))[capacity - 1]) / 2**64
    assert kept.sum() == capacity
    for count, length in zip(kept, lengths, strict=True):
        assert abs(count - limit * length) <= 1 + 1e-6


def test_even_priorities_are_uniform() -> None:
    trials, length, kept = 400, 50, 10
    counts = np.zeros(length)
    for seed in range(trials):
        counts[np.argsort(even_priorities(seed, "u", length))[:kept]] += 1
    mean = trials * kept / length
    deviation = np.sqrt(mean * (1 - kept / length))
    assert float(((counts - mean) ** 2 / deviation**2).sum()) < 100  # p < 3e-5
    first = np.array([even_priorities(seed, "u", 4)[0] for seed in range(trials)]) / 2**64
    assert abs(float(first.mean()) - 0.5) < 4.5 * np.sqrt(1 / 12 / trials)
