import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.errors import ConfigError, CorpusError
from unitone.recipes.espeak import sound
from unitone.recipes.espeak.corpus import MEAN_SECONDS, EspeakCommand, EspeakConfig, main, prepare
from unitone.recipes.espeak.sound import Speech, speak

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_RATE = 16_000
VOWELS = {"a", "A:", "A@", "A~", "E", "e:", "i", "i:", "O", "O:", "o:", "u", "u:", "aI", "@"}

pytestmark = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed ([tour])"
)

Row = dict[str, Any]


def rows_of(manifest: Path) -> list[Row]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pitch(samples: np.ndarray) -> float:
    """Return the median over voiced 50 ms windows of the autocorrelation's best lag, in Hz."""
    low, high = SAMPLE_RATE // 350, SAMPLE_RATE // 60
    found = []
    for start in range(0, len(samples) - 800, 400):
        window = samples[start : start + 800] - samples[start : start + 800].mean()
        correlation = np.correlate(window, window, "full")[799:]
        lag = low + int(np.argmax(correlation[low:high]))
        if np.sqrt(np.mean(window**2)) > 0.02 and correlation[lag] > 0.5 * correlation[0]:
            found.append(SAMPLE_RATE / lag)
    return float(np.median(found))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(
        EspeakConfig(out=tmp_path_factory.mktemp("espeak"), utterances=36, workers=2)
    ).parent


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[Row]:
    return rows_of(corpus / "manifest.jsonl")


def test_every_row_has_every_field(rows: list[Row]) -> None:
    assert [row["id"] for row in rows[:4]] == ["000000-en", "000000-de", "000000-fr", "000001-en"]
    for row in rows:
        assert set(row["translation"]) | {row["language"]} == {"en", "de", "fr"}
        assert row["gender"] == {"f": "female", "m": "male"}[row["speaker"][0]]
        assert row["audio"] == f"audio/{row['id']}.flac"


def test_an_id_is_one_meaning_in_three_languages(rows: list[Row]) -> None:
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        meaning, _, language = row["id"].partition("-")
        for other, text in row["translation"].items():
            assert by_id[f"{meaning}-{other}"]["text"] == text
            assert by_id[f"{meaning}-{other}"]["translation"][language] == row["text"]
            assert by_id[f"{meaning}-{other}"]["split"] == row["split"]


def test_splits_share_voices_but_no_sentence(rows: list[Row]) -> None:
    texts = {split: {row["text"] for row in rows if row["split"] == split} for split in
             ("train", "dev", "test")}  # fmt: skip
    assert all(texts.values())
    assert not texts["train"] & (texts["dev"] | texts["test"])
    assert not texts["dev"] & texts["test"]
    voices = {split: {row["speaker"] for row in rows if row["split"] == split} for split in texts}
    assert voices["dev"] & voices["train"]


def test_audio_is_mono_16_khz_neither_silent_nor_clipped(corpus: Path, rows: list[Row]) -> None:
    for row in rows:
        info = soundfile.info(corpus / row["audio"])
        assert (info.samplerate, info.channels) == (SAMPLE_RATE, 1)
        assert (info.format, info.subtype) == ("FLAC", "PCM_16")
        samples, _ = soundfile.read(corpus / row["audio"])
        assert len(samples) / SAMPLE_RATE == row["duration"]
        assert 0.5 < row["duration"] < 6
        assert 0.39 < np.abs(samples).max() < 0.81
        assert np.sqrt(np.mean(samples**2)) > 0.03
        assert np.abs(samples[-800:]).max() < 0.01  # at least 50 ms of silence at the end


def test_phones_tile_the_utterance(rows: list[Row]) -> None:
    for row in rows:
        phones = row["phones"]
        assert phones[0][:2] == ["_", 0.0]
        assert (phones[-1][0], phones[-1][2]) == ("_", row["duration"])
        for (symbol, start, end), (following, next_start, _) in pairwise(phones):
            assert start < end == next_start
            assert (symbol, following) != ("_", "_")
        letters = sum(map(str.isalpha, row["text"]))
        assert 0.4 * letters < len(phones) < 1.2 * letters


def test_phones_are_where_they_sound(corpus: Path, rows: list[Row]) -> None:
    """Most of the power of an s lies above 3.5 kHz, that of vowels below; pauses are silent."""
    shares: dict[str, list[float]] = {"s": [], "vowel": []}
    for row in rows:
        samples, _ = soundfile.read(corpus / row["audio"])
        for symbol, start, end in row["phones"]:
            stretch = samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            kind = "vowel" if symbol in VOWELS else symbol
            if kind in shares and len(stretch) > 320:
                power = np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)))) ** 2
                edge = round(3_500 / SAMPLE_RATE * len(stretch))
                shares[kind].append(power[edge:].sum() / power.sum())
    assert min(map(len, shares.values())) > 10
    assert np.median(shares["s"]) > 0.7
    assert np.median(shares["vowel"]) < 0.1


def test_women_speak_higher_than_men(corpus: Path, rows: list[Row]) -> None:
    heard: dict[str, list[float]] = {"female": [], "male": []}
    for row in rows:
        samples, _ = soundfile.read(corpus / row["audio"])
        heard[row["gender"]].append(pitch(samples))
    assert min(map(len, heard.values())) > 5
    assert max(heard["male"]) < 145 < min(heard["female"])


def test_bytes_do_not_depend_on_the_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    prepare(EspeakConfig(out=tmp_path / "one", utterances=36, workers=1))
    assert contents(tmp_path / "one") == contents(corpus)


def test_a_longer_corpus_begins_like_a_shorter_one(corpus: Path, tmp_path: Path) -> None:
    prepare(EspeakConfig(out=tmp_path / "short", utterances=7, workers=1))
    short, long = contents(tmp_path / "short"), contents(corpus)
    assert long["manifest.jsonl"].startswith(short["manifest.jsonl"])
    assert all(long[name] == short[name] for name in short if name.startswith("audio/"))


def test_another_seed_says_other_things(corpus: Path, tmp_path: Path) -> None:
    other = prepare(EspeakConfig(out=tmp_path / "other", utterances=6, seed=1, workers=1))
    texts = {row["text"] for row in rows_of(other)}
    assert not texts & {row["text"] for row in rows_of(corpus / "manifest.jsonl")}


def test_an_utterance_sounds_the_same_whatever_was_said_before(tmp_path: Path) -> None:
    def speech(text: str, voice: str) -> Speech:
        return Speech(text=text, voice=voice, rate=170, pitch=50, pitch_range=50, peak=0.5)

    this = speech("two dogs are playing", "gmw/en+f2")  # f2 has breath noise and an echo
    before = speech("le chien dort", "roa/fr+m1")
    speak([this], [tmp_path / "alone.flac"])
    speak([before, this], [tmp_path / "before.flac", tmp_path / "after.flac"])
    assert (tmp_path / "alone.flac").read_bytes() == (tmp_path / "after.flac").read_bytes()


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A corpus of 36 utterances whose making was killed with some, not all, of them done."""
    out = tmp_path / "killed"
    program = (
        "import sys; from pathlib import Path; "
        "from unitone.recipes.espeak import corpus as espeak; "
        "espeak._BATCH = 2; "
        "espeak.prepare(espeak.EspeakConfig(out=Path(sys.argv[1]), utterances=36, workers=1))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    journal = out / ".journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size > 0):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return out


def test_a_killed_run_goes_on_to_the_same_bytes(killed: Path, corpus: Path) -> None:
    assert not (killed / "manifest.jsonl").exists()
    lines = (killed / ".journal.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    done = [killed / json.loads(line)["audio"] for line in lines]
    assert 0 < len(done) < 36
    times = {path: path.stat().st_mtime_ns for path in done}
    with (killed / ".journal.jsonl").open("a") as journal:
        journal.write('{"id": "000')  # as if killed in the middle of a line
    (killed / "audio" / ".000030-en.flac.tmp").write_bytes(b"half")

    prepare(EspeakConfig(out=killed, utterances=36, workers=2))

    assert {path: path.stat().st_mtime_ns for path in done} == times
    assert contents(killed) == contents(corpus)


def test_a_second_run_changes_nothing_and_a_lost_file_comes_back(tmp_path: Path) -> None:
    config = EspeakConfig(out=tmp_path / "c", utterances=6, workers=1)
    manifest = prepare(config)
    first, when = contents(config.out), manifest.stat().st_mtime_ns
    assert prepare(config) == manifest
    assert manifest.stat().st_mtime_ns == when
    (config.out / "audio" / "000001-fr.flac").unlink()
    (config.out / "audio" / "000000-en.flac").write_bytes(b"")
    prepare(config)
    assert contents(config.out) == first


def test_one_language_still_has_both_translations(tmp_path: Path) -> None:
    config = EspeakConfig(out=tmp_path, utterances=3, workers=1, languages=("fr",))
    for row in rows_of(prepare(config)):
        assert row["language"] == "fr"
        assert set(row["translation"]) == {"en", "de"}


def test_another_corpus_is_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed = 0, now it is 1.*choose another --out"):
        prepare(EspeakConfig(out=corpus, utterances=36, seed=1))
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="choose another --out"):
        prepare(EspeakConfig(out=tmp_path, utterances=3))


def test_a_finished_corpus_needs_no_espeak(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "find_spec", lambda name: None)
    assert prepare(EspeakConfig(out=corpus, utterances=36)).is_file()


def test_a_missing_espeak_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'unitone\[tour\]'"):
        prepare(EspeakConfig(out=tmp_path / "c", utterances=3))
    assert not (tmp_path / "c").exists()


def test_a_failing_espeak_is_reported(tmp_path: Path) -> None:
    speech = Speech(
        text="hello", voice="no/such+voice", rate=170, pitch=50, pitch_range=50, peak=0.5
    )
    with pytest.raises(CorpusError, match="setting the voice no/such"):
        speak([speech], [tmp_path / "x.flac"])


def test_espeak_is_never_imported(corpus: Path) -> None:
    assert "espeakng_loader" not in sys.modules


@pytest.mark.parametrize(
    "wrong",
    [{"utterances": 0}, {"workers": 0}, {"languages": ()}, {"languages": ("en", "en")}],
)  # fmt: skip
def test_impossible_options_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EspeakConfig(out=tmp_path, **wrong)


def test_hours_are_about_right(rows: list[Row], tmp_path: Path) -> None:
    assert EspeakCommand(out=tmp_path, hours=1.0).config().utterances == round(3600 / MEAN_SECONDS)
    assert np.mean([row["duration"] for row in rows]) == pytest.approx(MEAN_SECONDS, rel=0.1)
    with pytest.raises(ConfigError, match="got 0"):
        EspeakCommand(out=tmp_path, hours=0.0).config()
    with pytest.raises(ConfigError, match="not both"):
        EspeakCommand(out=tmp_path, hours=1.0, utterances=9).config()


def test_the_command_line_prints_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", str(tmp_path / "c"), "--utterances", "3", "--workers", "1"]
    assert main(options) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "c" / "manifest.jsonl")
    assert main([*options, "--seed", "5"]) == 2
    assert "was begun with seed = 0, now it is 5" in capsys.readouterr().err
