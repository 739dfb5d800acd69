"""Words with times: planted alignments, and the doors that give them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lm.conftest import World
from tests.lm.t2v2.conftest import TABLE
from unitone.errors import ConfigError, CorpusError
from unitone.lm import decode, family, inference, transcribe
from unitone.lm.t2v2.words import edges, spans, timed, times


def spell(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", "ignore")


def test_a_unit_s_time_is_its_duration_s() -> None:
    found = times(np.array([1, 3]), upsample=1, frame_rate=50.0)
    assert found.tolist() == [0.0, 0.02, 0.08]
    found = times(np.array([1, 3]), upsample=2, frame_rate=100.0)
    assert np.allclose(found, [0.0, 0.005, 0.01, 0.025, 0.04])


@pytest.mark.parametrize(("upsample", "frame_rate"), [(1, 50.0), (2, 50.0), (2, 12.5)])
def test_planted_words_are_found_where_they_are(upsample: int, frame_rate: float) -> None:
    durations = np.array([2, 1, 4, 1, 3, 2, 5])
    units = [0, ord("o") + 1, ord("n") + 1, 0, ord(" ") + 1, ord("a") + 1, 0]
    classes = np.array(units).repeat(upsample)
    confidence = np.array([0.9, 0.5, 0.8, 0.9, 0.9, 0.25, 0.9]).repeat(upsample)
    begins = times(durations, upsample=upsample, frame_rate=frame_rate)
    one, other = timed(classes, confidence, spell, begins)
    assert (one.word, one.confidence) == ("on", 0.5)
    assert (one.start, one.end) == (2 / frame_rate, 7 / frame_rate)
    assert (other.word, other.confidence) == ("a", 0.25)
    assert (other.start, other.end) == (11 / frame_rate, 13 / frame_rate)


def test_blanks_within_a_word_are_its_own() -> None:
    classes = np.array([ord("a") + 1, 0, 0, ord("b") + 1, 0])
    (one,) = timed(classes, np.ones(5), spell, np.arange(6.0))
    assert (one.word, one.start, one.end) == ("ab", 0.0, 4.0)


def test_no_word_is_cut() -> None:
    ids = [*"é ü  a".encode()]
    assert edges(ids, spell) == [0, 2, 3, 5, 6, 7, 8]
    assert [(word, last - first) for word, first, last in spans(ids, spell)] == [
        *(("é", 2), ("ü", 2), ("a", 1))
    ]
    assert spans([], spell) == []
    pieces = ["▁one", "▁t", "wo", "▁"]

    def subwords(chosen: list[int]) -> str:
        return "".join(pieces[one] for one in chosen).replace("▁", " ").strip()

    assert spans([0, 1, 2, 3], subwords) == [("one", 0, 1), ("two", 1, 3)]


def test_hypotheses_have_words(learnt: Path, tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    run = ["--model", str(learnt / "last"), "--tokens", str(learnt.parent / "tokens"), "--words"]
    run += ["--device", "cpu", "--task", "asr", "--out", str(out)]
    assert decode.main(run) == 0
    for line, row in zip(map(json.loads, out.read_text().splitlines()), TABLE, strict=True):
        first, second = line["words"]
        assert [first["word"], second["word"]] == row["text"].split()
        # a word is three units of two frames each, at 100 frames a second
        assert (first["start"], second["end"]) == (0.0, 0.12)
        assert first["end"] == pytest.approx(0.06, abs=0.011)
        assert second["start"] == pytest.approx(0.06, abs=0.011)
        assert 0.5 < min(first["confidence"], second["confidence"]) <= 1.0


def test_words_of_the_wrong_thing_are_refused(
    learnt: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--tokens", str(learnt.parent / "tokens"), "--words", "--device", "cpu"]
    run += ["--out", str(tmp_path / "h.jsonl")]
    assert decode.main([*run, "--model", str(learnt / "last"), "--task", "tts"]) == 2
    assert "--words: task tts writes no words of the speech; use asr" in capsys.readouterr().err
    run[1] = str(world.tokens)
    assert decode.main([*run, "--model", str(world.model), "--task", "asr"]) == 2
    assert "a decoder-only model has no alignment of text and speech" in capsys.readouterr().err
    loaded = family.load(learnt / "last", device="cpu")
    predictor: Any = loaded.predictor("asr")
    untimed = predictor.request(loaded.fields.record(TABLE[0] | {"durations": None}))
    with pytest.raises(CorpusError, match="r0: has no durations"):
        predictor.timed([untimed])
    with pytest.raises(CorpusError, match="6 units have 5 durations"):
        loaded.fields.record(TABLE[0] | {"durations": [1] * 5})
    timer: Any = loaded.predictor("st")
    with pytest.raises(ConfigError, match="task st reads no text"):
        timer.timed([dataclasses.replace(untimed, durations=np.ones(6))])


def test_words_of_recordings(
    world: World, spoken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = world.manifest.parent / "3.wav"
    assert transcribe.main([str(recording), "--words", "--model", str(spoken)]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line.keys() == {"text", "words"}
    model = inference.load(spoken, device="cpu")
    found = model.transcribe_words(recording)
    assert [one.rounded() for one in found] == line["words"]
    assert all(0 <= one.start < one.end <= 1.01 for one in found)  # 1.0 s of sound
    assert transcribe.main([str(recording), "--words", "--model", str(world.model)]) == 2
    assert "no alignment of text and speech" in capsys.readouterr().err


def test_the_text_is_the_words(learnt: Path) -> None:
    loaded = family.load(learnt / "last", device="cpu")
    predictor: Any = loaded.predictor("asr")
    requests = [predictor.request(loaded.fields.record(row)) for row in TABLE]
    for one in predictor.timed(requests):
        assert " ".join(word.word for word in one.words) == " ".join(one.text.split())
