"""``python -m lm.decode``: every line of the corpus has a line or a reason, whatever happens."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from unitone.lm import decode, family
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.predictor import DecoderPredictor, PromptRequest
from unitone.lm.decoder.template import TASKS
from unitone.lm.jobs import decode as job
from unitone.lm.predictor import Prediction
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.shards import TokenShards
from unitone.train import checkpoint


def run(world: Any, task: str, out: Path, *options: object, source: str = "tokens") -> int:
    corpus = {"tokens": world.tokens, "manifest": world.manifest}
    given = [] if source == "none" else [f"--{source}", corpus[source]]
    words = ["--model", world.model, "--task", task, "--out", out, *given, *options]
    return decode.main([*map(str, words), "--device", "cpu"])


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", ["asr", "lid", "gid", "tts"])
def test_a_line_for_every_utterance_in_order(world: Any, tmp_path: Path, task: str) -> None:
    out = tmp_path / "hyp.jsonl"
    assert run(world, task, out) == 0
    lines = lines_of(out)
    assert [line["id"] for line in lines] == list(world.ids)
    assert {line["task"] for line in lines} == {task}
    kind = {"asr": "text", "lid": "label", "gid": "label", "tts": "units"}[task]
    for line in lines:
        filled = [name for name in ("text", "label", "units") if line[name] is not None]
        assert filled in ([kind], [] if kind == "label" else [kind])
        assert isinstance(line["truncated"], bool)
    made_by = json.loads((tmp_path / "hyp.decoding.json").read_text())
    assert made_by["lines"] == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hyp.decoding.json", "hyp.jsonl"]


def test_recordings_give_what_their_shards_give(world: Any, tmp_path: Path) -> None:
    assert run(world, "asr", tmp_path / "a.jsonl", "--split", "test") == 0
    assert run(world, "asr", tmp_path / "b.jsonl", "--split", "test", source="manifest") == 0
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert len(lines_of(tmp_path / "a.jsonl")) == 2


def test_a_killed_run_goes_on_and_the_file_is_the_same(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--batch-tokens", 60, "--temperature", 1.0, "--seed", 3)
    assert run(world, "asr", tmp_path / "whole.jsonl", *options) == 0
    out, calls = tmp_path / "hyp.jsonl", []
    original = DecoderPredictor.predict

    def interrupted(
        self: DecoderPredictor, requests: Sequence[PromptRequest], **options: Any
    ) -> list[Prediction]:
        calls.append(len(requests))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, requests, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DecoderPredictor, "predict", interrupted)
        assert run(world, "asr", out, *options) == 130
    assert not out.exists()
    journal = tmp_path / ".hyp.jsonl.work" / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"window": 0, "ba')  # the kill came in the middle of a line
    counted: list[int] = []

    def counting(
        self: DecoderPredictor, requests: Sequence[PromptRequest], **options: Any
    ) -> list[Prediction]:
        counted.append(len(requests))
        return original(self, requests, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DecoderPredictor, "predict", counting)
        assert run(world, "asr", out, *options) == 0
    assert sum(counted) == 6 - calls[0]
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal.parent.exists()


def test_a_finished_file_is_left_alone(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hyp.jsonl"
    assert run(world, "lid", out) == 0
    before = out.stat().st_mtime_ns
    assert run(world, "lid", out) == 0
    assert out.stat().st_mtime_ns == before
    assert run(world, "gid", out) == 2
    assert "was begun with task = " in capsys.readouterr().err
    (tmp_path / "notes.jsonl").write_text("mine")
    assert run(world, "lid", tmp_path / "notes.jsonl") == 2
    assert (tmp_path / "notes.jsonl").read_text() == "mine"


def test_translation_into_several_languages(world: Any, tmp_path: Path) -> None:
    for task, source in (("mt", "manifest"), ("st", "tokens")):
        out = tmp_path / f"{task}.jsonl"
        assert run(world, task, out, "--to", "de", "en", source=source) == 0
        pairs = [(line["id"], line["to"]) for line in lines_of(out)]
        assert pairs == [(one, "de" if int(one[1]) % 2 else "en") for one in world.ids]
        skipped = lines_of(tmp_path / f"{task}.skipped.jsonl")
        assert len(skipped) == 6
        assert {line["reason"][4:] for line in skipped} == {"is in de already", "is in en already"}


def test_options_replace_the_tasks_own(world: Any, tmp_path: Path) -> None:
    assert run(world, "asr", tmp_path / "a.jsonl", "--max-tokens", 3, "--min-tokens", 3) == 0
    assert all(line["truncated"] for line in lines_of(tmp_path / "a.jsonl"))
    for name, options in {
        "beam": ["--beam", 3, "--length-penalty", 0.5],
        "draw": ["--temperature", 0.9, "--top-k", 5, "--top-p", 0.9],
        "guided": ["--guidance", 2.0, "--no-repeat", 3, "--repetition-penalty", 1.2],
        "bf16": ["--precision", "bf16", "--max-ratio", 0.5],
        "int8": ["--precision", "int8", "--beam", 2],
    }.items():
        assert run(world, "asr", tmp_path / f"{name}.jsonl", *options) == 0
        assert len(lines_of(tmp_path / f"{name}.jsonl")) == 6


def test_continuation_keeps_its_beginning(world: Any, tmp_path: Path) -> None:
    out, plain = tmp_path / "hyp.jsonl", tmp_path / "all.jsonl"
    assert run(world, "continue", out, "--prefix", 4) == 0
    assert run(world, "continue", plain, "--prefix", 4, "--max-tokens", 1, "--temperature", 0) == 0
    rows = list(TokenShards(world.tokens).rows())
    for row, whole, short in zip(rows, lines_of(out), lines_of(plain), strict=True):
        given = row["units"][:4]
        assert whole["units"][: len(given)] == short["units"][: len(given)] == given
        assert len(short["units"]) - len(given) in (0, 1)


def test_generated_units_are_heard(world: Any, tmp_path: Path) -> None:
    out = tmp_path / "hyp.jsonl"
    options = ("--audio", tmp_path / "sound", "--min-tokens", 5, "--split", "test")
    assert run(world, "tts", out, *options) == 0
    for line in lines_of(out):
        wave, rate = soundfile.read(out.parent / line["audio"])
        assert rate == 16_000
        assert len(wave) >= 160 * 5


SPOKEN = ("--min-tokens", 5, "--split", "test")


def test_sound_that_is_gone_is_made_again(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "hyp.jsonl", ("--audio", tmp_path / "sound", *SPOKEN)
    assert run(world, "tts", out, *options) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    first = sorted((tmp_path / "sound").iterdir())[0]
    first.unlink()
    capsys.readouterr()
    assert run(world, "tts", out, *options) == 0
    assert f"1 files of {out} are gone, and made again: {first}" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run(world, "tts", out, *options) == 0
    assert "was there already" in capsys.readouterr().err


def test_sound_that_is_gone_from_a_killed_run_is_made_again(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "hyp.jsonl", ("--audio", tmp_path / "sound", *SPOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(job, "_finish", lambda *given, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(world, "tts", out, *options)
    shutil.rmtree(tmp_path / "sound")
    assert run(world, "tts", out, *options) == 0
    assert len(lines_of(out)) == len(list((tmp_path / "sound").iterdir())) == 2


def test_a_list_of_what_was_skipped_that_is_gone_is_made_again(world: Any, tmp_path: Path) -> None:
    out = tmp_path / "mt.jsonl"
    assert run(world, "mt", out, "--to", "de") == 0
    skipped = (tmp_path / "mt.skipped.jsonl").read_text()
    (tmp_path / "mt.skipped.jsonl").unlink()
    assert run(world, "mt", out, "--to", "de") == 0
    assert (tmp_path / "mt.skipped.jsonl").read_text() == skipped


def test_sound_of_another_decoder_is_not_this_ones(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(world.model, tmp_path / "model")
    given = ("--model", model, "--audio", tmp_path / "sound", *SPOKEN)
    words = ["--task", "tts", "--out", tmp_path / "hyp.jsonl", "--tokens", world.tokens, *given]
    words = [str(word) for word in [*words, "--device", "cpu"]]
    assert decode.main(words) == 0
    weights = model / "decoder" / "model.safetensors"
    tensors = checkpoint.load_tensors(weights)
    checkpoint.save_tensors(weights, {name: one + 0.5 for name, one in tensors.items()})
    assert decode.main(words) == 2
    assert "was begun with sound_by = " in capsys.readouterr().err


def test_a_run_goes_on_with_batches_of_another_size(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(world, "asr", tmp_path / "whole.jsonl") == 0
    out, original, calls = tmp_path / "hyp.jsonl", DecoderPredictor.predict, []

    def interrupted(
        self: DecoderPredictor, requests: Sequence[PromptRequest], **options: Any
    ) -> list[Prediction]:
        calls.append(len(requests))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, requests, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DecoderPredictor, "predict", interrupted)
        assert run(world, "asr", out, "--batch-tokens", 60) == 130
    assert run(world, "asr", out, "--batch-tokens", 4000) == 0
    found, whole = lines_of(out), lines_of(tmp_path / "whole.jsonl")
    assert [(one["id"], one["text"]) for one in found] == [(o["id"], o["text"]) for o in whole]


def test_what_is_too_long_or_lacks_something_is_listed(world: Any, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in world.manifest.read_text().splitlines()]
    rows[1]["text"] = "long " * 100
    rows[2].pop("text")
    rows[3]["language"] = "tlh"
    rows[4]["speaker"] = "nobody"
    manifest = world.manifest.with_name("changed.jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    out = tmp_path / "hyp.jsonl"
    assert run(world, "tts", out, "--manifest", manifest, source="none") == 0
    assert [line["id"] for line in lines_of(out)] == ["u0", "u5"]
    reasons = {line["id"]: line["reason"] for line in lines_of(tmp_path / "hyp.skipped.jsonl")}
    assert len(reasons) == 5
    assert "the model's context is 400" in reasons["u1"]
    assert "has no text, which task tts needs" in reasons["u2"]
    assert "<language:tlh>" in reasons["u3"]
    assert "<speaker:nobody>" in reasons["u4"]


@pytest.mark.parametrize(
    ("task", "options", "source", "status", "message"),
    [
        ("mt", [], "tokens", 2, "say into what"),
        ("mt", ["--to", "xx"], "tokens", 2, "<language:xx>"),
        ("asr", ["--to", "de"], "tokens", 2, "no choice of language"),
        ("sing", [], "tokens", 2, "no task 'sing'"),
        ("asr", [], "none", 2, "either --tokens or --manifest"),
        ("asr", ["--split", "dev"], "tokens", 2, "found test, train"),
        ("asr", ["--split", "dev"], "manifest", 2, "found test, train"),
        ("asr", ["--beam", "0"], "tokens", 2, "beam must be 1 or more"),
        ("asr", ["--audio", "x"], "tokens", 2, "generates text, not units"),
        ("asr", ["--limit", "0"], "tokens", 2, "--limit must be 1 or more"),
        ("asr", ["--prefix", "-1"], "tokens", 2, "--prefix must be 0 or more"),
    ],
)
def test_what_cannot_be_is_said(
    world: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    options: list[str],
    source: str,
    status: int,
    message: str,
) -> None:
    out = tmp_path / "hyp.jsonl"
    assert run(world, task, out, *options, source=source) == status
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_nothing_that_fits(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads(world.manifest.read_text().splitlines()[0])
    row["text"], row["audio"] = "long " * 200, str(world.manifest.parent / row["audio"])
    manifest, out = tmp_path / "long.jsonl", tmp_path / "hyp.jsonl"
    manifest.write_text(json.dumps(row) + "\n")
    assert run(world, "tts", out, "--manifest", manifest, source="none") == 1
    assert "no utterance could be decoded; the first: u0" in capsys.readouterr().err
    assert not out.exists()


def test_an_empty_manifest(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    out = tmp_path / "hyp.jsonl"
    assert run(world, "asr", out, "--manifest", empty, source="none") == 1
    assert "no usable utterance" in capsys.readouterr().err


def test_shards_of_another_tokenizer(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unitone.tokenizers import build, encode

    corpus = ["--manifest", str(world.manifest)]
    other = tmp_path / "other"
    options = ["--ssl", "mfcc", "--k", "7", "--unit-subwords", "0", "--out", str(other)]
    assert build.main([*corpus, *options]) == 0
    shards = ["--tokenizer", str(other), "--out", str(tmp_path / "tokens")]
    assert encode.main([*corpus, *shards]) == 0
    capsys.readouterr()
    given = ("--tokens", tmp_path / "tokens")
    assert run(world, "asr", tmp_path / "hyp.jsonl", *given, source="none") == 2
    assert "passports differ in kmeans.k" in capsys.readouterr().err


def test_a_vocabulary_without_the_tasks_tokens(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passport = Passport.load(world.tokenizer).hash
    vocabulary = Vocabulary.build(text=256, units=12, tasks=["asr", "gid"], passport=passport)
    config = ModelConfig(
        transformer=TransformerConfig(dim=8, layers=1, heads=1, kv_heads=1, ffn=8),
        vocab_size=len(vocabulary),
    )
    tasks = [task for task in TASKS if task.name in ("gid", "lid")]
    model = LanguageModel(config)
    folder = tmp_path / "model"
    family.save(folder, model=model, vocabulary=vocabulary, table=tasks, tokenizer=world.tokenizer)
    for task, message in (("lid", "<task:lid>"), ("gid", "emits gender")):
        options = ["--model", folder, "--task", task, "--tokens", world.tokens]
        out = ["--out", tmp_path / "hyp.jsonl", "--device", "cpu"]
        assert decode.main([*map(str, [*options, *out])]) == 2
        assert message in capsys.readouterr().err
