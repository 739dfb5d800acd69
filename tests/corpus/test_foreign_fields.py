"""Any field of a foreign record may have any type: a row or a listed reason, never a traceback."""

import contextlib
import copy
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.corpus.corpus import read_corpus
from unitone.corpus.cuts import cut_of
from unitone.corpus.utterance import Skipped, Utterance
from unitone.corpus.waveforms import load
from unitone.errors import CorpusError

GOOD: dict[str, dict[str, Any]] = {
    "plain": {
        "id": "a",
        "audio": "a.wav",
        "start": 0.5,
        "duration": 1.0,
        "end": 1.5,
        "channel": 0,
        "text": "hi",
        "translation": {"de": "hallo"},
        "language": "en",
        "speaker": "s",
        "gender": "f",
        "split": "train",
        "phones": [["h", 0.0, 0.1]],
    },
    "nemo": {
        "audio_filepath": "a.wav",
        "offset": 0.5,
        "duration": 1.0,
        "text": "hi",
        "lang": "en",
        "source_lang": "en",
        "target_lang": "de",
        "taskname": "ast",
        "channel_selector": 0,
        "speaker": "s",
        "id": "a",
    },
    "lhotse": {
        "id": "a",
        "start": 0.5,
        "duration": 1.0,
        "channel": 0,
        "supervisions": [
            {
                "id": "s",
                "recording_id": "r",
                "start": 0.0,
                "duration": 1.0,
                "channel": 0,
                "text": "hi",
                "language": "en",
                "speaker": "s",
                "gender": "f",
                "custom": {"split": "train", "translation": {"de": "hallo"}},
                "alignment": {"phone": [["h", 0.6, 0.1, None]]},
            }
        ],
        "recording": {
            "id": "r",
            "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
            "sampling_rate": 16000,
            "num_samples": 32000,
            "duration": 2.0,
        },
        "custom": {"split": "train"},
        "type": "MonoCut",
    },
}
VALUES: tuple[Any, ...] = (
    None,
    19,
    -1,
    1.5,
    "2.3",
    "",
    "x",
    True,
    [],
    [1],
    ["a", None],
    {},
    {"a": 1},
    10**400,
)


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a record."""
    pairs = record.items() if isinstance(record, dict) else enumerate(record)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(record)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def well_typed(found: Utterance) -> bool:
    texts = (found.text, found.language, found.speaker, found.gender, found.split)
    times = (
        found.start,
        found.duration,
        found.stated_duration,
        *(t for x in found.labels for t in x[1:]),
    )
    return (
        isinstance(found.id, str)
        and all(one is None or isinstance(one, str) for one in texts)
        and all(isinstance(one, str) for pair in found.translation.items() for one in pair)
        and all(one is None or (isinstance(one, float) and math.isfinite(one)) for one in times)
        and (found.channel is None or isinstance(found.channel, int))
    )


@pytest.mark.parametrize("form", GOOD)
def test_a_field_of_any_type_is_a_row_or_a_listed_reason(form: str, tmp_path: Path) -> None:
    good = GOOD[form]
    lines = [json.dumps(good | {"id": "good"})]
    for path in places(good):
        lines += [json.dumps(changed(good, path, value)) for value in VALUES]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(lines) + "\n")

    entries = read_corpus(manifest).entries

    assert len(entries) == len(lines)
    assert entries[0].id == "good"
    assert all(isinstance(one, Skipped) or well_typed(one) for one in entries)
    assert all(one.reason for one in entries if isinstance(one, Skipped))


def test_a_field_of_any_type_in_a_shar_directory(tmp_path: Path) -> None:
    good = GOOD["lhotse"]
    recording = {"cut_id": "a", "recording": good["recording"]}
    pairs = [(good | {"id": "good"}, recording)]
    pairs += [(changed(good, path, value), recording) for path in places(good) for value in VALUES]
    pairs += [
        (good, changed(recording, path, value)) for path in places(recording) for value in VALUES
    ]
    for name, rows in zip(("cuts", "recording"), zip(*pairs, strict=True), strict=True):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.000000.jsonl").write_text(text)
    entries = read_corpus(tmp_path).entries
    assert len(entries) == len(pairs)
    assert entries[0].id == "good"
    assert all(isinstance(one, Skipped) or well_typed(one) for one in entries)


@pytest.mark.parametrize("form", GOOD)
def test_what_is_a_row_can_be_read_and_written_or_says_why_not(form: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * draw.standard_normal(32_000), 16_000)
    good = GOOD[form]
    lines = [
        json.dumps(changed(good, path, value) | {"id": str(number)})
        for number, (path, value) in enumerate(itertools.product(places(good), VALUES))
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    corpus = read_corpus(tmp_path / "m.jsonl")
    assert len(corpus.utterances) > 30
    for one in corpus.utterances:
        loaded = load(one, longest=40_000)
        assert (loaded.waveform is None) != (loaded.error is None)
        with contextlib.suppress(CorpusError):
            assert cut_of(one).id == one.id


@pytest.mark.parametrize(
    "more",
    [
        {"phones": [["a", 0.5, 0.2]]},
        {"translation": {"": "hallo"}},
    ],
)
def test_what_cannot_be_meant_is_listed(tmp_path: Path, more: dict[str, Any]) -> None:
    lines = [GOOD["plain"], GOOD["plain"] | {"id": "b"} | more]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = read_corpus(tmp_path / "m.jsonl")
    assert [one.id for one in corpus.utterances] == ["a"]
    assert len(corpus.skipped) == 1


def test_a_number_is_a_name(tmp_path: Path) -> None:
    for form in GOOD:
        path = ("supervisions", 0, "speaker") if form == "lhotse" else ("speaker",)
        manifest = tmp_path / f"{form}.jsonl"
        manifest.write_text(json.dumps(changed(GOOD[form], path, 19)) + "\n")
        (found,) = read_corpus(manifest).utterances
        assert found.speaker == "19"


def test_seconds_may_be_written_as_a_text(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "duration": "2.3"}) + "\n")
    (found,) = read_corpus(manifest).utterances
    assert found.duration == 2.3
