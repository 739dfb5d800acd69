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


def test_copies_of_a_recording_that_changed_are_made_again(tmp_path: Path) -> None:
    manifest, out = corpus(tmp_path), tmp_path / "out"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    arguments = ["--manifest", str(manifest), "--out", str(out), "--speeds", "0.5"]
    path = out / "audio" / "sp0.5-a.flac"
    for hertz, part, seconds in ((400, {}, 2.0), (800, {}, 2.0), (800, {"start": 0.5}, 1.0)):
        tone(tmp_path / "a.wav", hertz=hertz, seconds=1.0)
        manifest.write_text("".join(json.dumps(row | part) + "\n" for row in rows))
        assert perturb.main(arguments) == 0
        samples, rate = soundfile.read(path)
        assert len(samples) / rate == pytest.approx(seconds, abs=0.01)
        peak = int(np.abs(np.fft.rfft(samples)).argmax()) * rate / len(samples)
        assert peak == pytest.approx(0.5 * hertz, rel=0.01)


def test_a_corpus_of_the_user_is_no_folder_for_copies(tmp_path: Path) -> None:
    manifest = corpus(tmp_path)
    before = manifest.read_text()
    assert perturb.main(["--manifest", str(manifest), "--out", str(tmp_path)]) == 2
    assert manifest.read_text() == before


def test_a_recording_that_is_gone(tmp_path: Path) -> None:
    manifest = corpus(tmp_path)
    (tmp_path / "a.wav").unlink()
    assert perturb.main(["--manifest", str(manifest), "--out", str(tmp_path / "out")]) == 1


def test_a_run_killed_at_its_first_copy_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments = ["--manifest", str(corpus(tmp_path)), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "write", killed)
        assert perturb.main(arguments) == 130
    assert perturb.main(arguments) == 0
