"""A draw is a function of ids, durations and the seed; it is uniform and costs what it draws."""

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unitone.corpus import audio
from unitone.corpus.corpus import read_corpus
from unitone.corpus.cuts import CutsConfig, write_cuts
from unitone.corpus.draw import Draw, draw
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError, CorpusError

Record = dict[str, Any]


def manifest(folder: Path, records: Sequence[Record | str], name: str = "m.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return path


def drawn(path: Path, seconds: float, *, seed: int = 0, split: str | None = None) -> Draw:
    return draw(path, split=split, seconds=seconds, seed=seed, workers=2)


def ids(found: Draw) -> list[str]:
    return [utterance.id for utterance in found.utterances]


def records_of(durations: list[float]) -> list[Record]:
    return [
        {"id": f"u{number}", "audio": f"{number}.wav", "duration": duration}
        for number, duration in enumerate(durations)
    ]


several_durations = st.lists(st.integers(1, 90).map(lambda n: n / 10), min_size=1, max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(durations=several_durations, seconds=st.floats(0.1, 120), data=st.data())
def test_it_is_the_fewest_of_smallest_keys_in_any_order_of_lines(
    tmp_path: Path, durations: list[float], seconds: float, data: st.DataObject
) -> None:
    records = records_of(durations)
    found = drawn(manifest(tmp_path, records), seconds)
    other = drawn(manifest(tmp_path, data.draw(st.permutations(records))), seconds)

    assert ids(found) == ids(other)
    assert (found.seconds, found.corpus_seconds) == (other.seconds, other.corpus_seconds)
    assert found.corpus_seconds == pytest.approx(sum(durations))
    assert found.seconds is not None
    assert found.whole == (len(found.utterances) == len(records))
    if found.whole:
        return
    assert found.seconds >= seconds - 1e-6
    last = found.utterances[-1].stated_duration
    assert last is not None
    assert found.seconds - last < seconds


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(durations=several_durations, first=st.floats(0.1, 60), more=st.floats(0.0, 60))
def test_more_seconds_go_on_where_fewer_ended(
    tmp_path: Path, durations: list[float], first: float, more: float
) -> None:
    path = manifest(tmp_path, records_of(durations))
    few, many = drawn(path, first), drawn(path, first + more)
    assert ids(many)[: len(few.utterances)] == ids(few)


def test_a_whole_corpus_is_what_is_read(tmp_path: Path) -> None:
    lines: list[Record | str] = [*records_of([1.0] * 30), "no JSON", {"audio": "y"}]
    lines.append({"id": "u3", "audio": "x"})
    lines.append({"id": "bad", "audio": "z", "duration": -1})
    path = manifest(tmp_path, lines)
    found, corpus = drawn(path, 1000.0), read_corpus(path)
    assert found.whole
    assert sorted(found.utterances, key=lambda one: one.line) == corpus.utterances
    assert found.skipped == tuple(corpus.skipped)
    assert len(found.skipped) == 4
    assert found.seconds == found.corpus_seconds == 30.0


def test_every_utterance_is_as_likely_as_any_other(tmp_path: Path) -> None:
    trials, count, taken = 200, 30, 6
    path = manifest(tmp_path, records_of([1.0] * count))
    times = Counter(
        name for seed in range(trials) for name in ids(drawn(path, float(taken), seed=seed))
    )
    mean = trials * taken / count
    variance = mean * (1 - taken / count)
    chi_squared = sum((times[f"u{n}"] - mean) ** 2 / variance for n in range(count))
    assert sum(times.values()) == trials * taken
    assert chi_squared < 75  # 29 degrees of freedom: p < 1e-5


def test_lines_that_cannot_be_used_take_no_place(tmp_path: Path) -> None:
    good = records_of([1.0] * 300)
    bad: list[Record | str] = [{**one, "channel": "left"} for one in good[::2]]
    path = manifest(tmp_path, [*bad, *good[1::2]])
    found = drawn(path, 50.0)
    assert found.seconds == 50.0
    assert len(found.utterances) == 50
    # of those drawn with them, and no others: half of the lines are bad
    assert 15 < len(found.skipped) < 100
    assert all("channel" in one.reason for one in found.skipped)
    assert found.num_utterances == 300


def test_of_lines_with_one_id_the_first_is_drawn(tmp_path: Path) -> None:
    records = records_of([1.0] * 99)
    twice = [{**one, "text": text} for text in ("first", "second") for one in records]
    found = drawn(manifest(tmp_path, twice), 20.0)
    assert len(set(ids(found))) == 20
    assert {utterance.text for utterance in found.utterances} == {"first"}
    assert all("duplicate id, first on line" in one.reason for one in found.skipped)


def test_only_the_split_is_drawn_from(tmp_path: Path) -> None:
    names = ("train", "dev", None)
    lines = [{**one, "split": names[n % 3]} for n, one in enumerate(records_of([1.0] * 300))]
    path = manifest(tmp_path, [*lines, {"id": "x", "audio": "x", "duration": 1, "split": 3}])
    found = drawn(path, 20.0, split="dev")
    assert {one.split for one in found.utterances} == {"dev"}
    assert len(found.utterances) == 20
    with pytest.raises(ConfigError, match=r"--split test.*found dev, train"):
        drawn(path, 20.0, split="test")


def test_cuts_of_lhotse_are_drawn_as_the_lines_they_were_made_of(tmp_path: Path) -> None:
    lines = []
    for number in range(40):
        soundfile.write(tmp_path / f"{number}.wav", np.ones(800 + 16 * number) / 9, 16_000)
        seconds = round((800 + 16 * number) / 16_000, 6)
        split = ("train", "dev")[number % 2]
        record = {"id": f"u{number}", "audio": f"{number}.wav", "split": split, "text": "a"}
        lines.append({**record, "duration": seconds})
    path = manifest(tmp_path, lines)
    out = tmp_path / "cuts" / "cuts.jsonl.gz"
    write_cuts(CutsConfig(reading=ReadingConfig(manifest=path), out=out))
    for asked in (None, "dev"):
        here, there = (drawn(one, 0.5, split=asked) for one in (path, out))
        assert ids(here) == ids(there)
        assert here.corpus_seconds == pytest.approx(there.corpus_seconds)


def test_unknown_durations_come_from_the_headers_of_those_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Record | str] = []
    for number in range(400):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(1600 + 8 * number), 16_000)
        records.append({"id": f"u{number}", "audio": f"{number}.wav"})
    records.append({"id": "gone", "audio": "gone.wav"})
    path = manifest(tmp_path, records)
    read: list[Path] = []
    plain = audio.header_seconds

    def counted(clip: audio.Clip) -> float:
        read.append(clip.path)
        return plain(clip)

    monkeypatch.setattr(audio, "header_seconds", counted)
    found = drawn(path, 5.0)
    held = sum(soundfile.info(str(one.audio)).duration for one in found.utterances)
    assert held >= 5.0
    assert found.seconds == pytest.approx(held, abs=1e-3)
    assert not found.whole
    assert found.corpus_seconds is None
    assert len(set(read)) < 300  # blocks of 256 headers
    random.Random(0).shuffle(records)
    assert ids(drawn(manifest(tmp_path, records), 5.0)) == ids(found)


def test_a_manifest_without_anything_usable_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"m\.jsonl: no usable utterance.*not JSON"):
        drawn(manifest(tmp_path, ["nothing", "at all"]), 1.0)
    with pytest.raises(ConfigError, match="no such file"):
        drawn(tmp_path / "none.jsonl", 1.0)


def test_strict_and_infinite_hours(tmp_path: Path) -> None:
    path = manifest(tmp_path, [*records_of([1.0] * 9), "broken"])
    reading = ReadingConfig(manifest=path)
    everything = reading.draw(math.inf, seed=0)
    assert everything.whole
    assert everything.utterances == tuple(read_corpus(path).utterances)
    with pytest.raises(CorpusError, match="--strict"):
        ReadingConfig(manifest=path, strict=True).draw(3.0, seed=0)
