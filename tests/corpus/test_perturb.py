import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unitone.corpus import perturb
from unitone.corpus.corpus import read_corpus
from unitone.errors import ConfigError


def tone(path: Path, *, hertz: float, seconds: float) -> None:
    time = np.arange(round(16_000 * seconds)) / 16_000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * time), 16_000)


def corpus(folder: Path) -> Path:
    for name in ("a", "b"):
        tone(folder / f"{name}.wav", hertz=400, seconds=1.0)
    rows = [
        {"id": "a", "audio": "a.wav", "text": "x", "speaker": "s", "split": "train"},
        {"id": "b", "audio": "b.wav", "text": "y", "speaker": "t", "split": "test"},
    ]
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_copy_is_faster_and_higher(tmp_path: Path) -> None:
    manifest, out = corpus(tmp_path), tmp_path / "out"
    arguments = ["--manifest", str(manifest), "--out", str(out), "--speeds", "0.8", "1.25"]
    assert perturb.main(arguments) == 0
    made = {one.id: one for one in read_corpus(out / "manifest.jsonl").utterances}
    assert sorted(made) == ["a", "b", "sp0.8-a", "sp1.25-a"]
    assert made["sp0.8-a"].speaker == "sp0.8-s"
    assert made["sp0.8-a"].text == "x"
    for speed in (0.8, 1.25):
        path = made[f"sp{speed:g}-a"].audio
        assert path is not None
        samples, rate = soundfile.read(path)
        assert len(samples) / rate == pytest.approx(1 / speed, abs=0.01)
        peak = int(np.abs(np.fft.rfft(samples)).argmax()) * rate / len(samples)
        assert peak == pytest.approx(400 * speed, rel=0.01)
    before = {path: path.stat().st_mtime_ns for path in (out / "audio").iterdir()}
    assert perturb.main(arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "audio").iterdir()}


def test_a_split_of_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--manifest", str(corpus(tmp_path)), "--out", str(tmp_path / "out")]
    assert perturb.main([*arguments, "--split", "dev"]) == 2
    assert "--split dev: no utterance" in capsys.readouterr().err


def test_a_speed_that_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--speeds must be"):
        perturb.PerturbConfig(manifest=tmp_path, out=tmp_path, speeds=(1.0,))
