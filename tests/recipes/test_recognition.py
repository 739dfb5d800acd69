"""Recognition on one corpus: from its release to a score, and on to another corpus."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unitone.errors import ConfigError
from unitone.lm.t2v2 import options as t2v2
from unitone.recipes import an4, fsdd, recognition

SMALL = [
    *("--config", "lm-tiny", "--steps", "2", "--k", "8", "--unit-subwords", "0", "--speeds", "1.1"),
    *("--max-tokens", "512", "--threads", "1", "--no-compile", "--ssl", "mfcc"),
]


@pytest.mark.parametrize("given", [[], ["--root", "a", "--manifest", "b"]])
def test_one_of_root_and_manifest_is_required(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        an4.main([*given, "--out", str(tmp_path / "out")])
    assert "--root or --manifest" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [True, False])
def test_units_are_of_the_encoder_that_is_installed(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "packaged", lambda name: tmp_path if installed else None)
    config = recognition.RecognitionConfig(root=tmp_path, out=tmp_path)
    _, tokenizer, *_ = recognition.steps(config, manifest=tmp_path / "manifest.jsonl")
    extractor = tokenizer.config.extractor
    found = (extractor.ssl, extractor.layer, tokenizer.config.k)
    assert found == (("whisper-tiny.en", 4, 500) if installed else ("mfcc", None, 200))


def test_the_size_says_the_family(tmp_path: Path) -> None:
    config = recognition.RecognitionConfig(root=tmp_path, out=tmp_path, config="t2v2-micro")
    *_, trained, decoded, _ = recognition.steps(config, manifest=tmp_path / "manifest.jsonl")
    assert trained.config.options.pieces == t2v2.Pieces(speech=False, synthesis=False)
    assert trained.config.train.steps == config.suited.steps["t2v2"]
    assert decoded.config.decoding == t2v2.DecodingConfig()
    with pytest.raises(ConfigError, match="--init"):
        replace(config, init=tmp_path)


@pytest.mark.slow
def test_from_a_release_to_a_score_and_on_from_its_model(fsdd_root: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert fsdd.main(["--root", str(fsdd_root), "--out", str(first), *SMALL]) == 0
    manifest, start = first / "prepared" / "manifest.jsonl", first / "lm" / "best"
    options = ["--manifest", str(manifest), "--out", str(second), "--init", str(start), *SMALL]
    assert an4.main(options) == 0
    assert not (second / "tokenizer").exists()  # the model's own has made the tokens
    for folder in (first, second):
        (score,) = (json.loads(path.read_text()) for path in folder.glob("scores/*.json"))
        assert score["wer"] > 0
