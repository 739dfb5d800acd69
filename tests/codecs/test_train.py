"""The commands, from shards to speech, at toy size; and what they say to what can't work."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from unitone.codecs import synthesize, train
from unitone.codecs.unit_decoder import UnitDecoder, load
from unitone.errors import ConfigError
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer

Train = Callable[..., int]


@pytest.fixture
def train_tiny(stages: Any) -> Train:
    def run(out: Path, *more: object) -> int:
        options = {
            "--tokens": stages.tokens,
            "--manifest": stages.manifest,
            "--out": out,
            "--steps": 4,
            "--dim": 8,
            "--num-blocks": 1,
            "--crop-frames": 20,
            "--batch-crops": 3,
            "--discriminator-width": 0.03,
            "--precision": "fp32",
            "--log-every": 1,
            "--device": "cpu",
        } | {more[i]: more[i + 1] for i in range(0, len(more), 2)}
        return train.main([str(word) for pair in options.items() for word in pair])

    return run


@pytest.mark.parametrize("head", ["mel", "istft"])
def test_training_gives_a_codec(head: str, train_tiny: Train, stages: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    split = ("--split", "train", "--valid-split", "dev")
    assert train_tiny(out, "--head", head, "--tokenizer", stages.tokenizer, *split) == 0
    decoder = load(out)
    assert decoder.speakers == ("anna", "bert")
    assert decoder.passport.hash == Tokenizer.load(stages.tokenizer).passport.hash
    wave, rate = decoder.decode(np.array([0, 1, 2, 2], np.int32), speaker="bert")
    assert (len(wave), rate) == (640, 16_000)
    assert wave.any()
    assert decoder.encode(wave, rate).shape == (1, 2)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert "mel" in records[-1]["validation"]


def test_a_run_is_repeatable_and_a_finished_one_stays(train_tiny: Train, tmp_path: Path) -> None:
    assert train_tiny(tmp_path / "whole") == 0
    assert train_tiny(tmp_path / "again", "--save-every", 2) == 0
    whole, again = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "again")
    )
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    assert train_tiny(tmp_path / "again", "--save-every", 2) == 0  # nothing is left to do
    assert train_tiny(tmp_path / "again", "--lr", 0.1) == 2


def test_external_embeddings_are_trained_with(train_tiny: Train, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    vectors = {name: draw.normal(size=5).astype(np.float32) for name in ("anna", "bert")}
    save_file(vectors, tmp_path / "voices.safetensors")
    option = ("--speaker-embeddings", tmp_path / "voices.safetensors")
    assert train_tiny(tmp_path / "run", *option) == 0
    decoder = load(tmp_path / "run")
    wave, _ = decoder.decode(np.array([0, 1], np.int32), speaker=vectors["anna"])
    assert len(wave) == 320
    save_file({name: -vector for name, vector in vectors.items()}, option[1])
    assert train_tiny(tmp_path / "run", *option) == 2  # another voice is another run
    save_file({"anna": vectors["anna"]}, tmp_path / "one.safetensors")
    assert train_tiny(tmp_path / "no", "--speaker-embeddings", tmp_path / "one.safetensors") == 2
    assert train_tiny(tmp_path / "no", "--speaker-embeddings", tmp_path / "none") == 1


def test_what_cannot_be_trained_says_why(
    train_tiny: Train, stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_tiny(tmp_path / "a", "--tokens", tmp_path) == 1
    assert "holds no tokens.json" in capsys.readouterr().err
    assert train_tiny(tmp_path / "a", "--split", "sing") == 2
    assert "--split sing" in capsys.readouterr().err
    assert train_tiny(tmp_path / "a", "--tokenizer", tmp_path / "none") == 2
    assert "no such directory" in capsys.readouterr().err


def test_each_head_has_its_defaults_and_an_old_option_its_new_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    where: dict[str, Any] = {name: Path(name) for name in ("tokens", "manifest", "out")}
    mel = train.DecoderTrainConfig(**where)
    istft = train.IstftTrainConfig(**where, head="istft")
    assert (mel.train.steps, mel.backbone.dim, mel.crop_frames) == (1_500, 256, 64)
    assert (istft.train.ema, istft.backbone.dim, istft.crop_frames) == (0.999, 512, 96)
    with pytest.raises(ConfigError, match="DecoderTrainConfig is not of --head istft"):
        train.DecoderTrainConfig(**where, head="istft")
    for words in (["--head", "istft"], ["--head=istft"]):
        with pytest.raises(SystemExit):
            train.main([*words, "--help"])
        assert "400000" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        train.main(["--validation-split", "dev"])
    assert caught.value.code == 2
    assert "--validation-split is called --valid-split now" in capsys.readouterr().err


def test_synthesis_writes_waveforms_and_a_manifest(
    decoder: UnitDecoder, stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--model", str(tmp_path / "decoder"), "--tokens", str(stages.tokens)]
    assert synthesize.main([*options, "--out", str(out), "--limit", "3"]) == 0
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["u0", "u1", "u2"]
    for row in rows:
        wave, rate = soundfile.read(out / row["audio"])
        assert rate == 16_000
        assert len(wave) % 160 == 0
        assert wave.any()
    kept = (out / "000001.wav").stat().st_mtime_ns
    (out / "000002.wav").unlink()
    assert synthesize.main([*options, "--out", str(out), "--limit", "3"]) == 0
    assert (out / "000001.wav").stat().st_mtime_ns == kept
    assert (out / "000002.wav").is_file()
    assert synthesize.main([*options, "--out", str(out), "--speaker", "bert"]) == 2
    assert "was begun with speaker = " in capsys.readouterr().err
    assert synthesize.main([*options, "--out", str(out), "--speaker", "carl"]) == 2
    assert "anna, bert" in capsys.readouterr().err


def test_a_row_without_a_speaker_has_no_voice_of_several(
    decoder: UnitDecoder,
    stages: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row | {"speaker": None} for row in TokenShards(stages.tokens).rows()]
    monkeypatch.setattr(TokenShards, "rows", lambda _: iter(rows))
    options = ["--model", str(tmp_path / "decoder"), "--tokens", str(stages.tokens)]
    options += ["--out", str(tmp_path / "out")]
    assert synthesize.main(options) == 2
    assert "has no speaker, the decoder has anna, bert; give one" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.wav"))
    assert synthesize.main([*options, "--speaker", "bert"]) == 0
    rows.reverse()  # files are known by number: other rows are other sound
    assert synthesize.main([*options, "--speaker", "bert"]) == 2
    assert "ids_sha256" in capsys.readouterr().err
    logging.getLogger("unitone").setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", ["README.md", "config.json", ".notes.tmp", "best"])
def test_a_folder_of_the_user_is_left_as_it_is(
    name: str, train_tiny: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    assert train_tiny(tmp_path) == 2
    assert f"holds other files ({name})" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_waveforms_do_not_go_among_files_of_the_user(
    train_tiny: Train, stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_tiny(tmp_path / "run", "--steps", 1) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.wav").write_text("mine")
    words = ["--model", str(tmp_path / "run"), "--tokens", str(stages.tokens)]
    assert synthesize.main([*words, "--out", str(tmp_path / "mine")]) == 2
    assert "holds other files (000000.wav)" in capsys.readouterr().err
    assert (tmp_path / "mine" / "000000.wav").read_text() == "mine"
