"""The ASR judge: what it is made of, learning a few sounds, and its scores."""

import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.eval import judge_train
from unitone.eval.jobs.judge_train import Prepared
from unitone.eval.judge import __main__ as command
from unitone.eval.judge import judge, transcripts
from unitone.eval.judge.augment import AugmentConfig, _times, augmented
from unitone.eval.judge.data import Recordings, RecordingSource, drop_too_short
from unitone.eval.judge.model import (
    CtcObjective,
    Network,
    NetworkConfig,
    collapse,
    log_mel,
    normalized,
    outputs_needed,
    outputs_of,
    padded,
)
from unitone.eval.pairs import read_references
from unitone.train.certify import certificate, weights

RATE = 16_000
TONES = {"a": 300.0, "b": 700.0, "c": 1500.0, "d": 3000.0}
WORDS = ("ab", "ba", "cad", "dac", "bc a", "d b", "acd", "cb")
TINY = ("--dim", "32", "--blocks", "2", "--kernel", "3", "--batch-frames", "400")


def sung(text: str, voice: int) -> np.ndarray:
    """Return a tone for every letter; voices differ in tempo and detuning."""
    length = round(RATE * (0.1 + 0.01 * voice))
    times = np.arange(length) / RATE
    pieces = [np.zeros(800)]
    for letter in text:
        pitch = TONES.get(letter, 0.0) * (1 + 0.02 * voice)
        pieces += [0.3 * np.sin(2 * np.pi * pitch * times) * np.hanning(length)]
    noise = np.random.default_rng(voice).normal(size=sum(map(len, pieces)) + 800) * 1e-3
    noise[:-800] += np.concatenate(pieces)
    return noise.astype(np.float32)


def write_corpus(folder: Path, *, voices: tuple[int, ...], split: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for voice in voices:
        for number, text in enumerate(WORDS):
            name = f"{voice}-{number}"
            soundfile.write(folder / f"{name}.wav", sung(text, voice), RATE)
            row = {"id": name, "audio": f"{name}.wav", "text": text, "speaker": f"v{voice}"}
            rows.append({**row, "language": "en" if number % 2 else "de", "split": split})
    return write_lines(folder / "manifest.jsonl", rows)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "argv", ["judge"])  # the command names its parts in it
    yield
    logging.getLogger("unitone").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    manifest = write_corpus(folder / "corpus", voices=(0, 1))
    options = ["--manifest", str(manifest), "--out", str(folder / "run"), "--device", "cpu"]
    options += [*TINY, "--steps", "200", "--lr", "0.01", "--precision", "fp32"]
    options += ["--vtlp", "0.02", "--frames", "2", "--bands", "1"]
    assert command.main(["train", *options]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of another voice, and hypotheses: three right, one of another text, one silent."""
    folder = tmp_path_factory.mktemp("judged")
    write_corpus(folder / "corpus", voices=(2,), split="test")
    rows = []
    for number, text in enumerate(WORDS):
        name = f"2-{number}"
        said = WORDS[0] if number == 5 else text
        soundfile.write(folder / f"said{number}.wav", sung(said, 2), RATE)
        where = None if number == 6 else f"said{number}.wav"
        rows.append({"id": name, "task": "tts", "text": None, "audio": where, "units": [1]})
    write_lines(folder / "hyp.jsonl", rows)
    return folder


def score(trained: Path, judged: Path, *more: str, hyp: str = "hyp.jsonl") -> int:
    options = ["--judge", str(trained), "--ref", str(judged / "corpus" / "manifest.jsonl")]
    return command.main(["score", *options, "--hyp", str(judged / hyp), "--device", "cpu", *more])


@given(st.text("abc", max_size=12), st.integers(0, 3), st.integers(1, 3))
def test_collapse_undoes_any_path_of_a_text(text: str, blanks: int, times: int) -> None:
    path: list[int] = []
    for place, letter in enumerate(text):
        equal = place > 0 and text[place - 1] == letter
        path += [0] * max(blanks, int(equal)) + ["abc".index(letter) + 1] * times
    classes = np.array(path + [0] * blanks, np.int64)
    assert collapse(classes, "abc") == text
    if times == 1 and blanks == 0:
        encoded = NetworkConfig(characters="abc").encode(text)
        assert len(classes) == outputs_needed(encoded)


def test_a_row_does_not_depend_on_its_batch() -> None:
    config = NetworkConfig(characters="ab", num_mels=8, dim=16, blocks=2, kernel=3)
    network = Network(config, generator=torch.Generator().manual_seed(0)).eval()
    draw = np.random.default_rng(0)
    rows = [draw.normal(size=(length, 8)).astype(np.float32) for length in (37, 60, 13)]
    features, lengths = padded(rows)
    with torch.no_grad():
        together = network(features, lengths)
        for place, row in enumerate(rows):
            alone = network(*padded([row]))
            count = int(outputs_of(lengths)[place])
            torch.testing.assert_close(together[place, :count], alone[0, :count])


def test_features_ignore_level_and_start_at_the_first_sample() -> None:
    wave = sung("abc", 0)
    found = log_mel(wave, 40)
    assert found.shape == (-(-len(wave) // 160), 40)
    quiet = normalized(log_mel(wave * 0.5, 40))
    np.testing.assert_allclose(quiet, normalized(found), atol=1e-3)
    assert log_mel(wave[:1], 40).shape == (1, 40)
    assert np.isfinite(normalized(log_mel(np.zeros(4000, np.float32), 40))).all()


def test_augmentation_is_a_function_of_the_stream() -> None:
    features = log_mel(sung("abcd", 0), 40)
    one, two, three = (
        augmented(features, AugmentConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert one.shape != three.shape or not np.allclose(one, three)
    assert abs(len(three) / len(features) - 1) < 0.12


def test_time_goes_forward_from_end_to_end() -> None:
    for wanted, seed in itertools.product((1, 2, 37, 200), range(9)):
        places = _times(100, wanted, rhythm=0.3, stream=np.random.default_rng(seed))
        assert len(places) == wanted
        assert places[0] == 0
        assert (np.diff(places) > 0).all()
        assert wanted == 1 or places[-1] == pytest.approx(99)
    even = _times(100, 50, rhythm=0.0, stream=np.random.default_rng(0))
    np.testing.assert_allclose(even, np.linspace(0, 99, 50))


def test_batches_are_functions_of_their_spec() -> None:
    config = NetworkConfig(characters="abcd ")
    recordings = Recordings(
        features=tuple(log_mel(sung(text, 0), 40) for text in WORDS),
        texts=WORDS,
        speakers=("v0",),
        seconds=1.0,
        sha256="",
    )
    recordings, targets = drop_too_short(recordings, [config.encode(text) for text in WORDS])
    source = RecordingSource(recordings=recordings, targets=targets, max_frames=200, seed=3)
    plan = source.plan(0)
    assert sorted(row for spec in plan for row in spec.rows) == list(range(len(WORDS)))
    assert torch.equal(source.load(plan[0]).features, source.load(plan[0]).features)
    assert source.plan(1) != plan
    network = Network(config, generator=torch.Generator().manual_seed(0))
    loss = CtcObjective(network)(source.load(plan[0]))
    assert loss.total.isfinite()
    assert int(loss.count) == sum(len(targets[row]) for row in plan[0].rows)


def test_recordings_too_short_for_their_text_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = NetworkConfig(characters="ab")
    features = tuple(np.zeros((length, 8), np.float32) for length in (40, 8))
    recordings = Recordings(
        features=features, texts=("ab", "aabb"), speakers=(), seconds=1.0, sha256=""
    )
    with caplog.at_level("WARNING"):
        kept, targets = drop_too_short(recordings, [config.encode(t) for t in recordings.texts])
    assert kept.texts == ("ab",)
    assert len(targets) == 1
    assert "1 recordings are too short" in caplog.text
    with pytest.raises(CorpusError, match="too short"):
        drop_too_short(recordings, [config.encode("ab" * 50)] * 2)


def test_training_learns_the_sounds(trained: Path, judged: Path) -> None:
    found = judge.load(trained)
    assert found.transcribe([sung(text, 0) for text in WORDS]) == list(WORDS)
    assert found.origin.speakers == ("v0", "v1")
    assert found.transcribe([]) == []
    assert found.transcribe([np.zeros(100, np.float32)]) == [""]


def test_words_beside_a_tsv_belong_to_the_identity_of_a_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", sung("abc", 0), RATE)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.wav\t{len(sung('abc', 0))}\n")
    options = ["--manifest", str(tmp_path / "train.tsv"), "--split", "None", "--steps", "1"]
    options += [*TINY, "--device", "cpu", "--precision", "fp32", "--out", str(tmp_path / "j")]
    for words, status in (("abc", 0), ("abc", 0), ("cba", 2)):
        (tmp_path / "train.wrd").write_text(f"{words}\n")
        assert judge_train.main(options) == status
    assert "was begun with manifest" in capsys.readouterr().err


def test_transcripts_do_not_depend_on_their_neighbors(trained: Path) -> None:
    found = judge.load(trained)
    waves = [sung(text, 2) for text in ("abcdabcdabcd", "a", "cb")]
    assert found.transcribe(waves) == [found.transcribe([wave])[0] for wave in waves]


def test_a_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "corpus", voices=(0,))
    common = ["--manifest", str(manifest), *TINY, "--precision", "fp32", "--device", "cpu"]

    def train(out: str, steps: int) -> bytes:
        more = ["--out", str(tmp_path / out), "--steps", str(steps), "--max-seconds", "9999"]
        assert command.main(["train", *common, *more, "--save-every", "3"]) == 0
        return (tmp_path / out / "last" / "model.safetensors").read_bytes()

    whole = train("whole", 6)
    assert train("whole", 6) == whole
    assert command.main(["train", *common, "--out", str(tmp_path / "whole"), "--lr", "1.0"]) == 2


def test_hypotheses_with_their_speaker_before_the_id_are_heard(
    trained: Path, judged: Path, tmp_path: Path
) -> None:
    references = read_references(judged / "corpus" / "manifest.jsonl")
    rows = [json.loads(line) for line in (judged / "hyp.jsonl").read_text().splitlines()]
    for row in rows:
        row["id"] = f"v2-{row['id']}"
        row["audio"] = row["audio"] and str(judged / row["audio"])
    path = write_lines(tmp_path / "hyp.jsonl", rows)
    found = judge.load(trained)
    expected = transcripts.of_hypotheses(found, judged / "hyp.jsonl", references)
    assert any(expected)
    assert transcripts.of_hypotheses(found, path, references) == expected


def test_the_ground_truth_stands_beside_the_score(
    trained: Path, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(trained, judged, "--by", "language", "--out", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "real recordings (ground truth)" in shown
    assert "language=de, synthesized" in shown
    found = json.loads((tmp_path / "judge.json").read_text())
    assert found["floor"]["cer"] < 0.1
    expected = found["synthesised"]["cer"] - found["floor"]["cer"]
    assert found["difference"]["cer"]["difference"] == pytest.approx(expected)
    assert 0.1 < expected < 0.6
    for name in ("floor", "synthesised"):
        assert found[name]["cer_interval"]["low"] <= found[name]["cer"]
    assert found["shared_voices"] == []
    rows = read_lines(tmp_path / "utterances.jsonl")
    assert rows[6]["synthesised"] == ""
    assert "Intelligibility: CER" in (tmp_path / "judge.html").read_text()


def test_other_hypotheses_are_tested_in_pairs(trained: Path, judged: Path, tmp_path: Path) -> None:
    options = ["--against", str(judged / "hyp.jsonl"), "--out", str(tmp_path)]
    assert score(trained, judged, *options) == 0
    found = json.loads((tmp_path / "judge.json").read_text())
    assert found["comparison"]["cer"]["difference"] == 0


def test_voices_it_knows_are_named(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_corpus(tmp_path / "corpus", voices=(1,))
    rows = read_lines(manifest)
    hypotheses = [{"id": row["id"], "audio": f"corpus/{row['audio']}"} for row in rows]
    write_lines(tmp_path / "hyp.jsonl", hypotheses)
    out = tmp_path / "out"
    assert score(trained, tmp_path, "--out", str(out)) == 0
    assert json.loads((out / "judge.json").read_text())["shared_voices"] == ["v1"]


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (lambda rows: rows[1:], 1, "no hypothesis for 1 reference (2-0)"),
        (lambda rows: [{**row, "task": "asr"} for row in rows], 2, "eval.wer"),
        (lambda rows: [{"id": row["id"]} for row in rows], 1, 'no "audio"'),
        (lambda rows: [{**row, "audio": "no.wav"} for row in rows], 1, "no.wav: no such file"),
    ],
)
def test_hypotheses_that_cannot_be_judged_say_why(
    change: Change,
    status: int,
    message: str,
    trained: Path,
    judged: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = read_lines(judged / "hyp.jsonl")
    write_lines(judged / "bad.jsonl", change(rows))
    assert score(trained, judged, hyp="bad.jsonl") == status
    assert message in capsys.readouterr().err


def test_missing_hypotheses_may_count_as_empty(trained: Path, judged: Path, tmp_path: Path) -> None:
    rows = read_lines(judged / "hyp.jsonl")
    write_lines(judged / "few.jsonl", rows[:3])
    options = ["--allow-missing", "--out", str(tmp_path)]
    assert score(trained, judged, *options, hyp="few.jsonl") == 0
    assert json.loads((tmp_path / "judge.json").read_text())["missing"] == 5


def test_what_is_no_judge_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no judge"):
        judge.load(tmp_path)
    (tmp_path / "config.json").write_text('{"codec": "unit_decoder"}')
    with pytest.raises(ConfigError, match="something else"):
        judge.load(tmp_path)
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_bytes((trained / "last" / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or damaged"):
        judge.load(tmp_path)


def test_a_corpus_without_texts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", sung("ab", 0), RATE)
    write_lines(tmp_path / "m.jsonl", [{"id": "a", "audio": "a.wav", "split": "train"}])
    options = ["--manifest", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "run")]
    assert command.main(["train", *options]) == 1
    assert "no recording with a text" in capsys.readouterr().err
    assert command.main(["train", *options, "--split", "sung"]) == 2


def test_the_command_names_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    assert "{train,score}" in capsys.readouterr().out
    assert command.main([]) == 2
    assert command.main(["sing"]) == 2


def certify(manifest: Path, out: Path) -> int:
    options = ["--manifest", str(manifest), "--out", str(out), "--device", "cpu", *TINY]
    return command.main(["train", "--certify", *options, "--precision", "fp32", "--threads", "1"])


@pytest.mark.usefixtures("one_thread")
def test_its_training_is_certified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_corpus(tmp_path / "corpus", voices=(0, 1))
    status = certify(manifest, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert status == 0, "\n".join(lines)
    assert [line.split()[1] for line in lines if line.startswith("holds")] == [*certificate.CHECKS]
    assert lines[0].endswith("M weights; 16 utterances")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("one_thread")
def test_a_part_that_nothing_trains_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spare(self: Prepared) -> Network:
        network = made(self)
        network.add_module("spare", torch.nn.Linear(2, 2))
        return network

    made = Prepared.network
    manifest = write_corpus(tmp_path / "corpus", voices=(0,))
    monkeypatch.setattr(certificate, "CHECKS", {"gradients": weights.gradients})
    assert certify(manifest, tmp_path / "run") == 0
    monkeypatch.setattr(Prepared, "network", spare)
    assert certify(manifest, tmp_path / "run") == 1
    captured = capsys.readouterr()
    assert "judge.network.spare.bias, judge.network.spare.weight" in captured.out
    assert "error: not certified: gradients\n" in captured.err
