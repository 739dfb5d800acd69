"""From recordings through a neural codec's codes to a model that hears and speaks them."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import unitone
from tests.lm.conftest import UNITS, World, mixture_of, vocabulary, write_corpus
from unitone.codecs import codec as codecs
from unitone.codecs import encode as codes_encode
from unitone.config import command_line
from unitone.errors import CheckpointError, ConfigError
from unitone.lm import decode, family
from unitone.lm import train as lm_train
from unitone.lm.data import store
from unitone.lm.data.fields import CodesOfModel, Fields
from unitone.lm.data.mixture import examples
from unitone.lm.data.sources import Source
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.options import DecoderConfig
from unitone.lm.decoder.template import CODES
from unitone.lm.options import Pattern, SourceConfig
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers import build, encode
from unitone.tokenizers.shards import TokenShards

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Recordings, their units and codes, and the codec."""

    manifest: Path
    units: Path
    codes: Path
    codec: Path


@pytest.fixture(scope="module")
def coded(
    tmp_path_factory: pytest.TempPathFactory,
    speech: Callable[..., np.ndarray],
    make_encodec: Callable[..., Path],
) -> Coded:
    folder = tmp_path_factory.mktemp("coded")
    manifest, codec = write_corpus(folder, speech), make_encodec(folder / "encodec")
    made = Coded(manifest=manifest, units=folder / "tokens", codes=folder / "codes", codec=codec)
    options = ["--manifest", str(manifest)]
    small = ["--ssl", "mfcc", "--k", str(UNITS), "--unit-subwords", "0", "--out", str(folder / "t")]
    assert build.main([*options, *small]) == 0
    tokenizer = ["--tokenizer", str(folder / "t")]
    assert encode.main([*options, *tokenizer, "--out", str(made.units)]) == 0
    given = ["--tokens", str(made.units), "--codec", str(codec)]
    assert codes_encode.main([*options, *given, "--out", str(made.codes)]) == 0
    return made


def arguments(coded: Coded, out: Path, *more: str) -> list[str]:
    return [
        *("--tokens", str(coded.codes), "--out", str(out), "--table", "codes"),
        *("--config", "lm-tiny", "--device", "cpu"),
        *("--valid-utterances", "1", "--threads", "1", "--context", "400"),
        *more,
    ]


@pytest.fixture(scope="module")
def model(coded: Coded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with a delay over two of the three levels, and with the codec."""
    shards = TokenShards(coded.codes)
    codes = CodesOfModel(codec=shards.require_codes().codec, levels=2, pattern="delay")
    words = vocabulary(tables=CODES, codes=(16, 16), passport=shards.passport.hash)
    shape = TransformerConfig(dim=16, layers=2, heads=2, kv_heads=1, ffn=24)
    made = LanguageModel(
        ModelConfig(transformer=shape, vocab_size=len(words), context=200),
        generator=torch.Generator().manual_seed(2),
    )
    with torch.no_grad():
        made.embedding.weight.mul_(30)
    folder = tmp_path_factory.mktemp("models") / "best"
    short = [replace(task, decoding=replace(task.decoding, max_tokens=20)) for task in CODES]
    family.save(
        folder,
        model=made,
        vocabulary=words,
        table=short,
        tokenizer=coded.codes / "tokenizer",
        decoder=coded.codec,
        codes=codes,
    )
    return folder


def hypotheses(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("pattern", ["delay", "flat"])
def test_the_store_has_the_codes_and_their_lengths(
    coded: Coded, pattern: Pattern, tmp_path: Path
) -> None:
    shards = TokenShards(coded.codes)
    words = vocabulary(tables=CODES, codes=(16, 16), passport=shards.passport.hash)
    formatter = PromptFormatter(Fields.open(coded.codes / "tokenizer", words), pattern=pattern)
    made = store.build(tmp_path / "store", shards=shards, fields=formatter.fields, split=None)
    made = pickle.loads(pickle.dumps(made))
    for number, row in enumerate(shards.rows()):
        found = made.record(number)["codes"]
        np.testing.assert_array_equal(formatter.fields.codes_of(found), row["codes"][:2])
    for task in CODES:
        batching = mixture_of(made, formatter, [task], max_tokens=4096, context=4096).batching
        numbers, _, costs = examples(made, batching, 0, name=task.name)
        lengths = costs + 1
        assert len(numbers) == 6
        made_of = [formatter.example(task, made.record(int(number))) for number in numbers]
        assert lengths.tolist() == [len(example) for example in made_of]
    again = store.build(tmp_path / "store", shards=shards, fields=formatter.fields, split=None)
    assert again.identity == made.identity


def test_recordings_and_shards_give_the_same(coded: Coded, model: Path, tmp_path: Path) -> None:
    for name, source in (("shards", "--tokens"), ("recordings", "--manifest")):
        corpus = coded.codes if source == "--tokens" else coded.manifest
        options = ["--model", str(model), "--task", "asr", source, str(corpus)]
        assert decode.main([*options, "--out", str(tmp_path / f"{name}.jsonl")]) == 0
    found = hypotheses(tmp_path / "shards.jsonl")
    assert found == hypotheses(tmp_path / "recordings.jsonl")
    opened = unitone.load(model, device="cpu")
    wave, rate = soundfile.read(coded.manifest.parent / "3.wav", dtype="float32")
    assert rate == 16_000
    assert opened.transcribe(wave) == found[3]["text"]
    assert opened.transcribe(coded.manifest.parent / "3.wav") == found[3]["text"]


def test_units_and_codes_at_once_come_from_shards(coded: Coded, model: Path) -> None:
    loaded, needs = family.load(model, device="cpu"), frozenset({"units", "codes"})
    with pytest.raises(ConfigError, match="come from shards; give --tokens"):
        Source(SourceConfig(manifest=coded.manifest), loaded, needs=needs)


def test_given_frames_are_heard_and_gone_on_from(coded: Coded, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "h.jsonl"
    options = ["--model", str(model), "--task", "continue", "--tokens", str(coded.codes)]
    options += ["--prefix", "5", "--max-tokens", "12", "--out", str(out)]
    assert decode.main([*options, "--audio", str(tmp_path / "wav")]) == 0
    codec = codecs.load(coded.codec)
    for line, row in zip(hypotheses(out), TokenShards(coded.codes).rows(), strict=True):
        codes = np.array(line["codes"], np.int32)
        np.testing.assert_array_equal(codes[0, :5], row["codes"][0, :5])
        np.testing.assert_array_equal(codes[1, :4], row["codes"][1, :4])
        wave, _ = soundfile.read(out.parent / line["audio"], dtype="float32")
        assert len(wave) == len(codec.decode(codes).wave) == 320 * codes.shape[1]
    opened = unitone.load(model, device="cpu")
    frames = len(opened.continue_speech(coded.manifest.parent / "0.wav").wave) // 320
    assert frames >= 20


def test_another_codec_is_refused_wherever_it_comes_in(
    coded: Coded,
    model: Path,
    make_encodec: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = make_encodec(tmp_path / "other", seed=1)
    given = ["--manifest", str(coded.manifest), "--tokens", str(coded.units)]
    assert codes_encode.main([*given, "--codec", str(other), "--out", str(tmp_path / "c")]) == 0
    asr = ["--model", str(model), "--task", "asr", "--out", str(tmp_path / "h.jsonl")]
    capsys.readouterr()
    assert decode.main([*asr, "--tokens", str(tmp_path / "c")]) == 2
    assert "differ in weight_hash" in capsys.readouterr().err
    assert decode.main([*asr, "--manifest", str(coded.manifest), "--decoder", str(other)]) == 2
    assert "differ in weight_hash" in capsys.readouterr().err
    assert decode.main([*asr, "--tokens", str(coded.units)]) == 2
    assert "holds no codes of a codec: make shards that do" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="differ in weight_hash"):
        unitone.load(model, decoder=other, device="cpu").speak("one two")
    with pytest.raises(ConfigError, match="differ in weight_hash"):
        lm_train.train(command(coded, tmp_path / "run", "--decoder", str(other)))


def test_training_on_codes_names_what_lacks(
    coded: Coded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--tokens", str(coded.units), "--out", str(tmp_path / "run")]
    assert lm_train.main([*run, "--table", "codes"]) == 2
    assert "python -m unitone.codecs.encode --tokens" in capsys.readouterr().err
    assert lm_train.main([*run, "--code-levels", "2"]) == 2
    assert "--code-levels: no task has {codes}" in capsys.readouterr().err
    assert lm_train.main([*run, "--codes-pattern", "flat"]) == 2
    assert "--codes-pattern: no task has {codes}" in capsys.readouterr().err
    run[1] = str(coded.codes)
    assert lm_train.main([*run, "--table", "codes", "--code-levels", "4"]) == 2
    assert "--code-levels 4: the shards in" in capsys.readouterr().err


def test_model_directories_say_what_their_codes_are(
    coded: Coded, model: Path, world: World, tmp_path: Path
) -> None:
    codes = family.load(model, device="cpu").codes
    assert codes is not None
    assert (codes.levels, codes.pattern) == (2, "delay")
    assert codes.codec == TokenShards(coded.codes).require_codes().codec
    for source in (model, world.model):  # written before there were codes
        folder = tmp_path / source.parent.name
        shutil.copytree(source, folder)
        config = json.loads((folder / "config.json").read_text())
        del config["unitone"]["codes"]
        (folder / "config.json").write_text(json.dumps(config))
    assert family.load(tmp_path / world.model.parent.name, device="cpu").codes is None
    with pytest.raises(CheckpointError, match=r"2 levels of codes.*nothing of codes"):
        family.load(tmp_path / model.parent.name, device="cpu")


def command(coded: Coded, out: Path, *more: str) -> DecoderConfig:
    return command_line(DecoderConfig, arguments(coded, out, *more), None)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["delay", "flat"])
def test_a_model_learns_the_codes_of_recordings_by_heart(
    coded: Coded, pattern: str, tmp_path: Path
) -> None:
    options = [
        *("--tasks", "tts", "asr", "--codes-pattern", pattern, "--split", "train", "--lr", "1e-3"),
        *("--steps", "320", "--max-tokens", "600", "--validate-every", "320", "--packing"),
        *("--weights", "tts", "4", "asr", "3", "--warmup-steps", "10"),
        *("--decoder", str(coded.codec), "--code-levels", "2"),
    ]
    assert lm_train.main(arguments(coded, tmp_path / "run", *options)) == 0
    model, out = tmp_path / "run" / "last", tmp_path / "h.jsonl"
    said = ["--model", str(model), "--task", "tts", "--tokens", str(coded.codes)]
    said += ["--split", "train", "--temperature", "0", "--out", str(out)]
    assert decode.main([*said, "--audio", str(tmp_path / "wav")]) == 0
    shards, codec = TokenShards(coded.codes), codecs.load(coded.codec)
    truth = {row["id"]: row["codes"][:2] for row in shards.rows()}
    lines = hypotheses(out)
    assert [line["id"] for line in lines] == ["u0", "u1", "u2", "u3"]
    for line in lines:
        codes = np.array(line["codes"], np.int32)
        np.testing.assert_array_equal(codes, truth[line["id"]])
        wave, rate = soundfile.read(out.parent / line["audio"], dtype="float32")
        direct = codec.decode(truth[line["id"]]).wave
        direct = direct / max(1.0, float(np.abs(direct).max()))
        assert rate == codec.sample_rate
        np.testing.assert_allclose(wave, direct, atol=1 / 32_000)

    loaded = unitone.load(model, device="cpu")
    recording = coded.manifest.parent / "1.wav"
    assert loaded.transcribe(recording) == "sentence 1"
    assert loaded.speak("sentence 1", speaker="ann", language="en").rate == codec.sample_rate
    heard = ["--model", str(model), "--task", "asr", "--manifest", str(coded.manifest)]
    asr = tmp_path / "asr.jsonl"
    assert decode.main([*heard, "--split", "train", "--out", str(asr)]) == 0
    assert [line["text"] for line in hypotheses(asr)] == [
        f"sentence {number}" for number in range(4)
    ]
