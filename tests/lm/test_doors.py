"""What the short commands and the Python interface say of input that a model can't be trusted with.

Nothing is cut, replaced or left out in silence.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import unitone
from unitone.codecs import unit_decoder
from unitone.corpus.corpus import read_corpus
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.lm import decode, family, speak, transcribe, translate
from unitone.lm.data.fields import Learnt
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.inference import UnifiedModel
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards

Speech = Callable[..., np.ndarray]
LEARNT = Learnt.of({*b" abcdefghijklmnopqrstuvwxyz"}, ["ann", "bob"])


@pytest.fixture
def model(world: Any) -> UnifiedModel:
    return unitone.load(str(world.model), device="cpu")


@pytest.fixture
def capped(world: Any, tmp_path: Path) -> Path:
    """The model, with tasks that end after three tokens and not before."""
    return saved(world, tmp_path / "capped", limits={"max_tokens": 3, "min_tokens": 3})


def saved(
    world: Any, folder: Path, *, limits: dict[str, int] | None = None, learnt: Learnt = LEARNT
) -> Path:
    loaded = family.load(world.model, device="cpu")
    family.save(
        folder,
        model=loaded.model,
        vocabulary=loaded.vocabulary,
        table=[
            replace(row, decoding=replace(row.decoding, **limits or {})) for row in loaded.table
        ],
        tokenizer=loaded.tokenizer,
        decoder=loaded.decoder,
        learnt=learnt,
    )
    return folder


def of_other_voices(world: Any, folder: Path, *names: str) -> Path:
    """Write the model's unit decoder for speakers of other names."""
    shutil.copytree(world.model / "decoder", folder)
    config = json.loads((folder / "config.json").read_text())
    config["network"]["speakers"] = names
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def recording(world: Any, number: int) -> str:
    return str(world.manifest.parent / f"{number}.wav")


def test_a_cut_off_is_said_by_every_command(
    world: Any, capped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--model", str(capped), "--device", "cpu"]
    out = ["--out", str(tmp_path / "a.wav"), "--language", "en"]
    for main, words in (
        (transcribe.main, [recording(world, 0)]),
        (translate.main, [recording(world, 0), "--to", "de"]),
        (translate.main, ["two dogs", "--to", "de"]),
        (speak.main, ["two dogs", *out]),
    ):
        assert main([*words, *named]) == 0
        assert "cut off at the cap on the length of the output" in capsys.readouterr().err


def test_a_cut_off_is_said_in_python(
    world: Any, capped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = unitone.load(capped, device="cpu")
    model.transcribe_all([recording(world, 0), recording(world, 1)])
    cut = [message for message in caplog.messages if "cut off" in message]
    assert [message.split(":")[0] for message in cut] == [recording(world, 0), recording(world, 1)]
    caplog.clear()
    model.continue_speech(recording(world, 0))
    assert "cut off" in caplog.text


def test_samples_of_any_kind_are_heard_as_their_file(
    world: Any, model: UnifiedModel, tmp_path: Path, speech: Speech
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(0.8), 16_000, subtype="PCM_16")
    whole, rate = soundfile.read(path, dtype="int16")
    expected = model.transcribe(path)
    for given in (whole, torch.from_numpy(whole), np.stack([whole] * 2), (whole, rate)):
        assert model.transcribe(given) == expected
    with pytest.raises(CorpusError, match="not finite"):
        model.transcribe(np.full(8_000, np.nan, np.float32))
    assert isinstance(model.transcribe(model.speak("two dogs", language="en")), str)


@pytest.mark.parametrize("text", ["TWO DOGS ARE PLAYING", "日本語"])
def test_a_text_of_characters_that_were_never_learnt_is_refused(
    text: str, world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = saved(world, tmp_path / "model"), tmp_path / "a.wav"
    named = ["--model", str(folder), "--device", "cpu"]
    assert speak.main([text, "--out", str(out), *named]) == 1
    error = capsys.readouterr().err
    assert f"the text has {text[0]!r}, {text[1]!r}".replace(",", "") in error
    assert "never occurred in training" in error
    assert not out.exists()
    assert translate.main([text, "--to", "de", *named]) == 1


def test_single_characters_that_were_never_learnt_are_named(
    world: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = unitone.load(saved(world, tmp_path / "model"), device="cpu")
    model.translate("two dogs", to="de")
    assert "never occurred" not in caplog.text
    model.translate("Two dogs are playing!", to="de")
    assert "the text has 'T' '!', which never occurred in training" in caplog.text
    older = unitone.load(world.model, device="cpu")  # says nothing of what it has learnt
    assert isinstance(older.translate("TWO", to="de"), str)


def test_a_character_of_bytes_that_were_learnt_is_none_that_was(
    world: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = "größe, ëß"  # ë is c3 ab, ß c3 9f: of ç (c3 a7) and of ɫ (c9 ab) no byte is new
    seen = said + "ɧ"  # c9 a7
    learnt = Learnt.of({*seen.encode()}, ("ann",), seen)
    model = unitone.load(saved(world, tmp_path / "model", learnt=learnt), device="cpu")
    model.translate("größe", to="de")
    assert "never occurred" not in caplog.text
    model.translate("größe çɫ", to="de")
    assert "the text has 'ç' 'ɫ', which never occurred" in caplog.text
    with pytest.raises(CorpusError, match="'ç' 'ɫ', which never occurred"):
        model.speak("ßçɫ")


def test_blank_text_is_no_text(model: UnifiedModel) -> None:
    for text in ("", "   ", "\n\t"):
        with pytest.raises(CorpusError, match="has no text"):
            model.speak(text)
        with pytest.raises(CorpusError, match="has no text"):
            model.translate(text, to="de")


def test_a_speaker_whom_the_decoder_has_not_heard_is_refused(world: Any, tmp_path: Path) -> None:
    decoder = of_other_voices(world, tmp_path / "decoder", "eve", "bob")
    model = unitone.load(world.model, device="cpu", decoder=str(decoder))
    with pytest.raises(ConfigError, match=r"has not heard speaker 'ann'; both know bob"):
        model.speak("two dogs", speaker="ann", language="en")
    with pytest.raises(ConfigError, match=r"no speaker 'eve'; the model has ann, bob"):
        model.speak("two dogs", speaker="eve", language="en")
    default = model.speak("two dogs", language="en")  # of the first whom both know
    assert np.array_equal(default.wave, model.speak("two dogs", speaker="bob", language="en").wave)
    with pytest.raises(ConfigError, match=r"has not heard speaker 'eva'; it has eve, bob; .* eve"):
        model.continue_speech(recording(world, 0), speaker="eva")
    nobody = of_other_voices(world, tmp_path / "nobody", "x", "y")
    with pytest.raises(ConfigError, match="has not heard any speaker of the model; both know none"):
        unitone.load(world.model, device="cpu", decoder=nobody).speak("two dogs")


def test_a_speaker_without_a_training_utterance_is_none(world: Any, tmp_path: Path) -> None:
    heard = replace(LEARNT, speakers=("bob",))
    model = unitone.load(saved(world, tmp_path / "model", learnt=heard), device="cpu")
    assert model.speakers == ("bob",)
    with pytest.raises(ConfigError, match="no speaker 'ann'; the model has bob"):
        model.speak("two dogs", speaker="ann")


def test_transcribe_writes_the_good_and_says_why_not_the_bad(
    world: Any, model: UnifiedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--model", str(world.model), "--device", "cpu"]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    good = [recording(world, 0), recording(world, 1)]
    assert transcribe.main([good[0], str(bad), str(tmp_path), good[1], *named]) == 1
    said = capsys.readouterr()
    first, second = model.transcribe_all(good)
    assert said.out == f"{first}\n\n\n{second}\n"
    assert f"{bad}: not readable as audio" in said.err
    assert f"{tmp_path}: a folder" in said.err
    assert "2 of 4 recordings could not be used" in said.err


def test_transcribe_without_recordings_is_wrong_usage(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe.main(["--model", str(world.model)]) == 2
    assert "name the recordings" in capsys.readouterr().err


def test_a_vocabulary_of_other_labels_is_refused(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(world.model, folder)
    path = folder / "vocabulary.json"
    swapped = path.read_text().replace('"de"', '"?"').replace('"en"', '"de"').replace('"?"', '"en"')
    path.write_text(swapped)
    with pytest.raises(CheckpointError, match="not the one that the weights were saved with"):
        unitone.load(folder, device="cpu")
    config = json.loads((folder / "config.json").read_text())
    for name in ("vocabulary", "learnt"):
        del config["unitone"][name]
    (folder / "config.json").write_text(json.dumps(config))
    assert unitone.load(folder, device="cpu").languages == ("en", "de")  # as earlier versions wrote


def test_what_is_too_faint_or_too_short_is_said(
    model: UnifiedModel, tmp_path: Path, speech: Speech, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "faint.wav"
    soundfile.write(path, speech(0.8) / 3_000, 16_000, subtype="FLOAT")
    for given, why in (
        (path, "dB of full scale is next to silence"),
        (np.full(16_000, 0.2) + speech(1.0) / 3_000, "next to silence"),
        (speech(0.1), "0.10 s is too short for words"),
    ):
        caplog.clear()
        model.transcribe(given)
        assert why in caplog.text
    caplog.clear()
    model.transcribe(speech(0.8))
    assert "to be relied on" not in caplog.text


def decoded(world: Any, out: Path, *options: object, task: str = "tts") -> int:
    words = ["--model", world.model, "--task", task, "--out", out, "--tokens", world.tokens]
    return decode.main([*map(str, [*words, *options]), "--device", "cpu"])


def test_one_speaker_and_one_language_for_a_whole_corpus(world: Any, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in world.manifest.read_text().splitlines()]
    for row in rows:  # of another corpus
        row["speaker"], row["audio"] = "stranger", str(world.manifest.parent / row["audio"])
        del row["language"]
    manifest = tmp_path / "texts.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", world.model, "--task", "tts", "--manifest", manifest, "--device", "cpu"]
    out, sound = tmp_path / "hyp.jsonl", tmp_path / "sound"
    options = ["--out", out, "--audio", sound, "--speaker", "ann", "--language", "en"]
    assert decode.main([*map(str, [*words, *options])]) == 0
    assert len(out.read_text().splitlines()) == 6


def test_a_speaker_or_language_that_cannot_be_is_named(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hyp.jsonl"
    for options, task, why in (
        (
            ["--speaker", "anne"],
            "tts",
            "no speaker 'anne'; the model has ann, bob; the nearest is ann",
        ),
        (["--language", "fr"], "tts", "no language 'fr'; the model has de, en"),
        (["--speaker", "ann"], "asr", "task asr reads no {speaker}"),
        (["--language", "en"], "asr", "task asr reads no {language}"),
    ):
        assert decoded(world, out, *options, task=task) == 2
        assert why in capsys.readouterr().err
    assert not out.exists()


def test_utterances_of_voices_that_the_decoder_lacks_are_left_out_by_name(
    world: Any, tmp_path: Path
) -> None:
    out = tmp_path / "hyp.jsonl"
    decoder = of_other_voices(world, tmp_path / "decoder", "bob", "eve")
    assert decoded(world, out, "--audio", tmp_path / "sound", "--decoder", decoder) == 0
    lines = (tmp_path / "hyp.skipped.jsonl").read_text().splitlines()
    reasons = {one["id"]: one["reason"] for one in map(json.loads, lines)}
    assert reasons.keys() == {"u1", "u3", "u5"}
    assert "has not heard speaker 'ann'; it has bob, eve" in reasons["u1"]


def test_a_corpus_with_characters_that_were_never_learnt(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(world, tmp_path / "model")  # the texts end in a digit
    words = ["--model", folder, "--task", "tts", "--tokens", world.tokens, "--device", "cpu"]
    assert decode.main([*map(str, [*words, "--out", tmp_path / "hyp.jsonl"])]) == 0
    assert "u1: the text has '1', which never occurred in training" in capsys.readouterr().err


def test_loaders_take_paths_as_text(world: Any) -> None:
    assert unit_decoder.load(str(world.model / "decoder")).speakers == ("ann", "bob")
    assert Vocabulary.load(str(world.model)).block("language").labels == ("de", "en")
    assert Passport.load(str(world.tokenizer)) == TokenShards(str(world.tokens)).passport
    assert read_corpus(str(world.manifest)).utterances[0].id == "u0"


def test_decoding_says_what_is_too_faint_or_too_short(
    world: Any, speech: Speech, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "faint.wav", speech(1.0) / 3_000, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "good.wav", speech(1.0), 16_000)
    manifest = tmp_path / "m.jsonl"
    lines = [{"id": name, "audio": f"{name}.wav"} for name in ("good", "faint")]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--model", str(world.model), "--task", "asr", "--device", "cpu"]
    out = ["--out", str(tmp_path / "hyp.jsonl")]
    assert decode.main([*words, "--manifest", str(manifest), *out]) == 0
    heard = capsys.readouterr().err.splitlines()
    (said,) = [line for line in heard if "not to be relied on" in line]
    assert said.startswith("1 recordings are too short or too quiet for words, faint for one")


def test_sound_of_others_is_not_written_over(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(world.model), "--task", "tts", "--device", "cpu"]
    words += ["--tokens", str(world.tokens), "--audio", str(tmp_path / "a")]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{world.ids[1]}.wav").write_text("mine")
    assert decode.main([*words, "--out", str(tmp_path / "hyp.jsonl")]) == 2
    assert f"{world.ids[1]}.wav is there already" in capsys.readouterr().err
    assert (tmp_path / "a" / f"{world.ids[1]}.wav").read_text() == "mine"
    (tmp_path / "a" / f"{world.ids[1]}.wav").unlink()
    for _ in range(2):
        assert decode.main([*words, "--out", str(tmp_path / "hyp.jsonl")]) == 0
