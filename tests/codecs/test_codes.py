"""Neural codecs of Transformers, and their codes as a column of token shards."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.codecs.conftest import Stages
from unitone.codecs import codec as codecs
from unitone.codecs import encode, synthesize
from unitone.codecs.huggingface import HuggingFaceCodec
from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.shards import TokenShards

MakeCodec = Callable[..., Path]


@pytest.fixture(scope="module")
def encodec(make_encodec: MakeCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encodec(tmp_path_factory.mktemp("codec") / "encodec")


def run(stages: Stages, codec: Path, out: Path, *more: str) -> int:
    given = ["--manifest", str(stages.manifest), "--tokens", str(stages.tokens)]
    return encode.main([*given, "--codec", str(codec), "--out", str(out), *more])


def parts(folder: Path) -> dict[str, bytes]:
    names = ("part-00000.parquet", "tokens.json", "skipped.jsonl", "README.md")
    return {name: (folder / name).read_bytes() for name in names}


def test_the_codes_of_recordings_stand_beside_their_units(
    stages: Stages, encodec: Path, tmp_path: Path
) -> None:
    assert run(stages, encodec, tmp_path / "codes") == 0
    shards, before = TokenShards(tmp_path / "codes"), TokenShards(stages.tokens)
    codec = codecs.load(encodec)
    assert shards.require_codes().codec == codecs.passport_of(encodec, codec)
    assert shards.require_codes().levels == 3
    assert shards.ids() == [f"u{index}" for index in range(6)]
    for index, (row, old) in enumerate(zip(shards.rows(), before.rows(), strict=True)):
        wave, rate = soundfile.read(stages.manifest.parent / f"{index}.wav", dtype="float32")
        np.testing.assert_array_equal(row["codes"], codec.encode(wave, rate))
        assert {name: value for name, value in row.items() if name != "codes"} == old
    assert len({row["codes"].tobytes() for row in shards.rows()}) == 6
    assert (tmp_path / "codes" / "tokenizer" / "passport.json").is_file()
    assert "encodec, the first 3 of 3 levels of 16, 50 frames" in (
        (tmp_path / "codes" / "README.md").read_text()
    )
    plain = pq.read_table(tmp_path / "codes" / "part-00000.parquet").to_pylist()
    assert np.array(plain[0]["codes"]).shape == (3, 20)


def test_the_first_levels_are_codes_of_their_own(
    stages: Stages, encodec: Path, tmp_path: Path
) -> None:
    assert run(stages, encodec, tmp_path / "all") == 0
    assert run(stages, encodec, tmp_path / "two", "--levels", "2") == 0
    whole, two = TokenShards(tmp_path / "all"), TokenShards(tmp_path / "two")
    for mine, theirs in zip(two.rows(), whole.rows(), strict=True):
        np.testing.assert_array_equal(mine["codes"], theirs["codes"][:2])
    wave, _ = codecs.load(encodec).decode(two[0]["codes"])
    assert wave.shape == (320 * two[0]["codes"].shape[1],)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    stages: Stages, encodec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(stages, encodec, tmp_path / "whole") == 0
    calls = []
    original = HuggingFaceCodec.encode

    def dies(self: HuggingFaceCodec, wave: np.ndarray, rate: int) -> np.ndarray:
        calls.append(len(wave))
        if len(calls) == 4:
            raise KeyboardInterrupt
        found: np.ndarray = original(self, wave, rate)
        return found

    monkeypatch.setattr(HuggingFaceCodec, "encode", dies)
    assert run(stages, encodec, tmp_path / "killed") == 130
    assert not (tmp_path / "killed" / "tokens.json").exists()
    assert run(stages, encodec, tmp_path / "killed") == 0
    assert len(calls) == 4 + 3
    assert parts(tmp_path / "killed") == parts(tmp_path / "whole")


def test_bad_recordings_are_skipped_and_counted(
    stages: Stages, encodec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(stages.manifest, tmp_path)
    for index in (0, 1, 2, 4, 5):
        shutil.copy(stages.manifest.parent / f"{index}.wav", tmp_path)
    (tmp_path / "2.wav").write_bytes(b"no audio")
    moved = Stages(
        manifest=tmp_path / "manifest.jsonl", tokenizer=stages.tokenizer, tokens=stages.tokens
    )
    assert run(moved, encodec, tmp_path / "codes", "--longest", "1.3") == 0
    assert TokenShards(tmp_path / "codes").ids() == ["u0", "u1", "u4"]
    lines = (tmp_path / "codes" / "skipped.jsonl").read_text().splitlines()
    reasons = {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}
    assert reasons.keys() == {"u2", "u3", "u5"}
    assert "not readable" in reasons["u2"]
    assert "no such file" in reasons["u3"]
    assert "too long" in reasons["u5"]
    capsys.readouterr()
    assert run(moved, encodec, tmp_path / "strict", "--strict") == 1
    assert "--strict: u2" in capsys.readouterr().err


def test_codes_of_two_codecs_are_not_mixed(
    stages: Stages,
    encodec: Path,
    make_encodec: MakeCodec,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = make_encodec(tmp_path / "other", seed=1)
    assert run(stages, encodec, tmp_path / "codes") == 0
    assert run(stages, encodec, tmp_path / "codes") == 0  # nothing left to do
    capsys.readouterr()
    assert run(stages, other, tmp_path / "codes") == 2
    assert "was begun with codes.codec.weight_hash" in capsys.readouterr().err
    assert run(stages, encodec, tmp_path / "codes", "--levels", "1") == 2
    assert "codes.levels = 3, now it is 1;" in capsys.readouterr().err
    assert run(stages, encodec, stages.tokens) == 2
    assert "codes.codec = None, now it is {'name': 'encodec'" in capsys.readouterr().err


def test_wrong_options_say_what_would_be_right(
    stages: Stages, encodec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(stages, encodec, tmp_path / "codes", "--levels", "4") == 2
    assert "--levels 4: the codec has 1 to 3" in capsys.readouterr().err
    assert run(stages, encodec, tmp_path / "codes", "--split", "dev") == 2
    assert "was not made from --manifest" in capsys.readouterr().err
    for more, why in ((["--longest", "0"], "--longest"), (["--batch-seconds", "9"], "one utter")):
        with pytest.raises(SystemExit):
            run(stages, encodec, tmp_path / "codes", *more)
        assert why in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"holds no codes.*unitone\.codecs\.encode"):
        TokenShards(stages.tokens).require_codes()


def test_codes_become_the_sound_that_the_codec_makes(
    stages: Stages,
    encodec: Path,
    make_encodec: MakeCodec,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(stages, encodec, tmp_path / "codes") == 0
    given = ["--tokens", str(tmp_path / "codes"), "--out", str(tmp_path / "wav")]
    assert synthesize.main(["--model", str(encodec), *given]) == 0
    codec, shards = codecs.load(encodec), TokenShards(tmp_path / "codes")
    for number, row in enumerate(shards.rows()):
        wave, rate = soundfile.read(tmp_path / "wav" / f"{number:06d}.wav", dtype="float32")
        assert rate == 16_000
        expected = codec.decode(row["codes"]).wave
        expected = expected / max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(wave, expected, atol=1 / 32_000)
    manifest = (tmp_path / "wav" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(manifest[0])["speaker"] == "anna"
    capsys.readouterr()
    assert synthesize.main(["--model", str(encodec), *given, "--speaker", "anna"]) == 2
    assert "hold voice and timing" in capsys.readouterr().err
    assert run(stages, encodec, tmp_path / "coarse", "--levels", "1") == 0
    coarse = ["--tokens", str(tmp_path / "coarse"), *given[2:]]
    assert synthesize.main(["--model", str(encodec), *coarse]) == 2
    assert "was begun with code_levels = 3, now it is 1" in capsys.readouterr().err
    other = make_encodec(tmp_path / "other", seed=1)
    assert synthesize.main(["--model", str(other), *given]) == 2
    assert "differ in weight_hash" in capsys.readouterr().err
    given[1] = str(stages.tokens)
    assert synthesize.main(["--model", str(encodec), *given]) == 2
    assert "holds no codes" in capsys.readouterr().err


def tiny(kind: str) -> Any:
    """Return a small random DAC or Mimi, of 3 levels of 16 codes."""
    transformers = pytest.importorskip("transformers")
    common = {"sampling_rate": 16_000, "hidden_size": 16, "codebook_size": 16}
    if kind == "dac":
        return transformers.DacModel(
            transformers.DacConfig(
                **common | {"hidden_size": 32},
                encoder_hidden_size=2,
                decoder_hidden_size=32,
                downsampling_ratios=[2, 4, 5, 8],
                upsampling_ratios=[8, 5, 4, 2],
                n_codebooks=3,
                codebook_dim=4,
            )
        )
    return transformers.MimiModel(
        transformers.MimiConfig(
            **common,
            num_filters=2,
            num_hidden_layers=1,
            intermediate_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            num_quantizers=3,
            upsampling_ratios=[8, 5, 4, 2],
            upsample_groups=16,
        )
    )


@pytest.mark.parametrize(("kind", "frame_rate"), [("dac", 50), ("mimi", 25)])
def test_dac_and_mimi_keep_the_laws_too(
    kind: str, frame_rate: int, speech: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    tiny(kind).save_pretrained(tmp_path)
    codec = codecs.load(tmp_path)
    assert codecs.passport_of(tmp_path, codec).name == kind
    assert (codec.num_levels, codec.codebook_size, codec.frame_rate) == (3, 16, frame_rate)
    codes = codec.encode(speech(0.5), 16_000)
    assert codes.shape == (3, round(0.5 * frame_rate + 0.4))
    whole = codec.encode(speech(0.5)[: -(-7_777 // 320) * 320], 16_000)
    rest = codec.encode(speech(0.5)[:7_777], 16_000)  # of no whole frame
    assert rest.shape == (3, -(-7_777 * frame_rate // 16_000)) == whole.shape
    for levels in (1, 3):
        wave, rate = codec.decode(codes[:levels])
        assert wave.shape == (codes.shape[1] * rate // frame_rate,)
        assert np.isfinite(wave).all()


def test_dac_gives_as_many_frames_as_the_original(tmp_path: Path) -> None:
    """descript-audio-codec pads to whole hops: 16,000 samples, hop 512, are 32 frames, not 31."""
    transformers = pytest.importorskip("transformers")
    config = transformers.DacConfig(
        sampling_rate=16_000,
        hidden_size=32,
        codebook_size=16,
        encoder_hidden_size=2,
        decoder_hidden_size=32,
        downsampling_ratios=[2, 4, 8, 8],
        upsampling_ratios=[8, 8, 4, 2],
        n_codebooks=2,
        codebook_dim=4,
    )
    transformers.DacModel(config).save_pretrained(tmp_path)
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 10
    assert codecs.load(tmp_path).encode(wave, 16_000).shape == (2, 32)


def test_what_is_no_codec_says_so(encodec: Path, tmp_path: Path) -> None:
    config = json.loads((encodec / "config.json").read_text())

    def changed(**values: Any) -> Path:
        folder = tmp_path / "-".join(values)
        shutil.copytree(encodec, folder)
        (folder / "config.json").write_text(json.dumps(config | values))
        return folder

    with pytest.raises(ConfigError, match="holds a llama; the codecs that are read: encodec"):
        codecs.load(changed(model_type="llama"))
    with pytest.raises(ConfigError, match=r"normalize is True.*mono codec"):
        codecs.load(changed(normalize=True))
    broken = changed(audio_channels=1)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        codecs.load(broken)
    codec = codecs.load(encodec)
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no \*\.safetensors"):
        codecs.passport_of(broken, codec)
    with pytest.raises(ValueError, match="hold the voice"):
        codec.decode(np.zeros((3, 4), np.int32), speaker="anna")


def test_weights_that_lack_are_not_drawn_at_random(encodec: Path, tmp_path: Path) -> None:
    from unitone.train.checkpoint import load_tensors, save_tensors

    shutil.copytree(encodec, tmp_path / "less")
    weights = load_tensors(encodec / "model.safetensors")
    name = sorted(weights)[0]
    del weights[name]
    save_tensors(tmp_path / "less" / "model.safetensors", weights)
    with pytest.raises(CheckpointError, match="has no tensor"):
        codecs.load(tmp_path / "less")


def test_without_transformers_there_is_a_cure(
    encodec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'unitone\[hf\]'"):
        codecs.load(encodec)
