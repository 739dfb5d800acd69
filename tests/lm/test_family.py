"""Model directories: whole or absent, checked when read, and as plain Hugging Face files."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.lm.conftest import PASSPORT
from unitone import cli
from unitone.config import from_dict
from unitone.errors import CheckpointError, ConfigError, UnitoneError
from unitone.lm import export, families, family
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.template import TASKS, DecoderTask, Decoding
from unitone.lm.family import LoadedModel, load, save
from unitone.lm.interop import finetune
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.model_card import Card, Score
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.passport import Passport
from unitone.train import checkpoint

SHAPE = TransformerConfig(dim=16, layers=2, heads=2, kv_heads=1, ffn=24)
OWN = DecoderTask(
    name="spell",
    template="<bos> {units} <sep> [ {text} <eos> ]",
    emits=("text",),
    metric="wer",
    decoding=Decoding(beam=3, length_penalty=0.5),
)
TASKS_HERE = (TASKS[0], OWN)
TOKENS = torch.arange(12)[None]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "made-tokenizer"
    folder.mkdir()
    from_dict(Passport, PASSPORT, where="test").save(folder)
    (folder / "kmeans.safetensors").write_bytes(b"centroids")
    (folder / "log.jsonl").write_text("of the build\n", encoding="utf-8")
    return folder


def vocabulary_of(tokenizer: Path | None) -> Vocabulary:
    passport = None if tokenizer is None else Passport.load(tokenizer).hash
    return Vocabulary.build(text=256, units=20, tasks=["asr"], passport=passport)


def build(vocabulary: Vocabulary, *, features: int = 0) -> LanguageModel:
    config = ModelConfig(transformer=SHAPE, vocab_size=len(vocabulary), features=features)
    return LanguageModel(config, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Path) -> Path:
    folder, vocabulary = tmp_path / "run" / "best", vocabulary_of(tokenizer)
    model = build(vocabulary, features=5)
    save(folder, model=model, vocabulary=vocabulary, table=TASKS_HERE, tokenizer=tokenizer)
    return folder


def read(folder: Path) -> LoadedModel:
    return load(folder, device="cpu")


@torch.no_grad()
def test_what_is_saved_is_loaded(saved: Path, tokenizer: Path) -> None:
    vocabulary = vocabulary_of(tokenizer)
    model, loaded = build(vocabulary, features=5), read(saved)
    assert loaded.vocabulary == vocabulary
    assert loaded.table == TASKS_HERE
    assert loaded.passport == Passport.load(tokenizer)
    assert loaded.tokenizer == saved / "tokenizer"
    assert loaded.decoder is None
    assert isinstance(loaded.model, LanguageModel)
    assert loaded.model.config == model.config
    assert torch.equal(loaded.model.head(loaded.model(TOKENS)), model.head(model(TOKENS)))
    assert torch.equal(
        loaded.model.state_dict()["projections.features.1.weight"],
        model.state_dict()["projections.features.1.weight"],
    )
    assert not (saved / "tokenizer" / "log.jsonl").exists()


@torch.no_grad()
def test_a_directory_from_before_scaled_rotation_is_loaded(saved: Path) -> None:
    expected = read(saved).model(TOKENS)

    def old(values: dict[str, Any]) -> None:
        for name in ("head_width", "rope_scaling"):
            assert values["unitone"]["llama"]["transformer"].pop(name) is None

    edit(saved / "config.json", old)
    assert torch.equal(read(saved).model(TOKENS), expected)


@torch.no_grad()
def test_scaled_rotation_and_wide_heads_are_kept(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(None)
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context=4)
    shape = dataclasses.replace(SHAPE, head_width=6, rope_scaling=scaling)
    config = ModelConfig(transformer=shape, vocab_size=len(vocabulary))
    model = LanguageModel(config, generator=torch.Generator().manual_seed(0)).eval()
    save(tmp_path / "m", model=model, vocabulary=vocabulary, table=TASKS_HERE)
    loaded = read(tmp_path / "m").model
    assert loaded.config == config
    assert torch.equal(loaded(TOKENS), model(TOKENS))


@torch.no_grad()
def test_a_directory_of_format_1_is_loaded(saved: Path, tokenizer: Path) -> None:
    follow = DecoderTask(
        name="like",
        template="<bos> {prompt_units} <sep> {text} <sep> [ {units} <eos> ]",
        emits=("unit",),
        metric="units",
        rerank="asr",
        prompt_tokens=20,
    )
    words = vocabulary_of(tokenizer)
    table = (*TASKS_HERE, follow)
    save(saved, model=build(words, features=5), vocabulary=words, table=table, tokenizer=tokenizer)
    expected = read(saved).model(TOKENS)

    def old(values: dict[str, Any]) -> None:
        assert values.pop("family") == "decoder"
        values["unitone"]["format"] = 1
        for row in values["unitone"]["tasks"]:
            row["check"], row["sample_tokens"] = row.pop("rerank"), row.pop("prompt_tokens")
            row["template"] = row["template"].replace("{prompt_units}", "{sample}")

    edit(saved / "config.json", old)
    assert "{sample}" in (saved / "config.json").read_text()
    assert families.of_directory(saved) == "decoder"
    loaded = read(saved)
    assert loaded.table == table
    assert torch.equal(loaded.model(TOKENS), expected)


def test_the_folder_of_a_run_stands_for_its_best_model(saved: Path, tmp_path: Path) -> None:
    run = saved.parent
    (run / "config.json").write_text('{"tokens": "of the run"}')
    assert read(run).folder == saved
    assert families.of_directory(run) == "decoder"
    assert finetune.is_ours(run)
    assert export.main(["--model", str(run), "--out", str(tmp_path / "plain")]) == 0
    saved.rename(run / "last")
    assert read(run).folder == run / "last"


def test_loading_in_bf16_and_by_auto(saved: Path) -> None:
    loaded = load(saved, device="cpu", precision="bf16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert not loaded.int8
    loaded = load(saved, device="cpu", precision="int8")  # rounded where it generates
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert loaded.int8


@torch.no_grad()
def test_an_opt_model_is_saved_too(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(None)
    shape = dataclasses.replace(SHAPE, kv_heads=2)
    config = OptConfig(transformer=shape, vocab_size=len(vocabulary), context=40, embed_dim=8)
    model = OptModel(config, generator=torch.Generator().manual_seed(0)).eval()
    decoder = tmp_path / "vocoder"
    decoder.mkdir()
    (decoder / "config.json").write_text("{}", encoding="utf-8")
    save(tmp_path / "m", model=model, vocabulary=vocabulary, table=TASKS_HERE, decoder=decoder)
    loaded = read(tmp_path / "m")
    assert isinstance(loaded.model, OptModel)
    assert loaded.model.config == config
    assert loaded.decoder == tmp_path / "m" / "decoder"
    assert torch.equal(loaded.model(TOKENS), model(TOKENS))


def test_the_card_states_facts_and_what_is_not_stated(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(None)
    scores = (Score(name="WER % on an4", value=7.5, low=6.0, high=9.25),)
    card = Card(title="Tiny", data=("an4 train",), hours=0.71, scores=scores)
    model = build(vocabulary)
    save(tmp_path / "m", model=model, vocabulary=vocabulary, table=TASKS_HERE, card=card)
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Tiny\n")
    assert "| WER % on an4 | 7.5 | 6 to 9.25 |" in text
    assert "- an4 train\n- hours of speech: 0.71\n" in text
    assert "## Licenses\n\n- not stated" in text
    assert "| spell | units | text | `<bos> {units} <sep> [ {text} <eos> ]` |" in text
    assert f"{model.num_parameters:,} parameters" in text


def test_a_failed_save_leaves_the_old_directory(
    saved: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = (saved / "model.safetensors").read_bytes()
    monkeypatch.setattr(checkpoint, "save_tensors", full)
    vocabulary = vocabulary_of(tokenizer)
    with pytest.raises(OSError, match="No space"):
        save(saved, model=build(vocabulary), vocabulary=vocabulary, table=TASKS_HERE)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["best"]


def test_saving_into_a_folder_that_is_being_replaced(saved: Path) -> None:
    """As the trainer does: its own temporary folder is what it asks to be filled."""
    vocabulary = vocabulary_of(None)
    with checkpoint.replacing_folder(saved) as temporary:
        save(temporary, model=build(vocabulary), vocabulary=vocabulary, table=TASKS_HERE[:1])
    assert read(saved).table == TASKS_HERE[:1]
    assert [path.name for path in saved.parent.iterdir()] == ["best"]


def test_a_kill_between_the_two_renames_loses_nothing(saved: Path) -> None:
    saved.rename(saved.with_name(".best.old"))
    assert read(saved).table == TASKS_HERE


def test_a_save_replaces_all_of_the_old_directory(saved: Path) -> None:
    (saved / "stale").touch()
    vocabulary = vocabulary_of(None)
    save(saved, model=build(vocabulary), vocabulary=vocabulary, table=TASKS_HERE)
    assert not (saved / "stale").exists()
    assert read(saved).passport is None


def test_parts_that_do_not_belong_together_are_not_saved(tmp_path: Path, tokenizer: Path) -> None:
    vocabulary = vocabulary_of(tokenizer)
    other = Vocabulary.build(text=256, units=20, tasks=["asr"], passport="f" * 64)
    with pytest.raises(ConfigError, match="their ids mean different things"):
        save(
            tmp_path / "m",
            model=build(other),
            vocabulary=other,
            table=TASKS_HERE,
            tokenizer=tokenizer,
        )
    model = LanguageModel(ModelConfig(transformer=SHAPE, vocab_size=5))
    with pytest.raises(ConfigError, match="the model has 5 tokens, the vocabulary 286"):
        save(tmp_path / "m", model=model, vocabulary=vocabulary, table=TASKS_HERE)
    assert not (tmp_path / "m").exists()


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_vocabulary(folder: Path) -> None:
    Vocabulary.build(text=256, passport=Vocabulary.load(folder).passport).save(folder)


def another_tokenizer(folder: Path) -> None:
    values = PASSPORT | {"deduplicate": False}
    from_dict(Passport, values, where="test").save(folder / "tokenizer")


def unknown_field(folder: Path) -> None:
    edit(folder / "config.json", lambda values: values["unitone"].update(heads=3))


def newer_format(folder: Path) -> None:
    edit(folder / "config.json", lambda values: values["unitone"].update(format=9))


def unknown_family(folder: Path) -> None:
    edit(folder / "config.json", lambda values: values.update(family=["decoder"]))


def plain(folder: Path) -> None:
    edit(folder / "config.json", lambda values: values.pop("unitone"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_weights, r"model\.safetensors cannot be read .*; copy the directory again"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors cannot be"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is damaged"),
        (lambda folder: (folder / "vocabulary.json").unlink(), r"vocabulary\.json: missing"),
        (another_vocabulary, "they are of two models"),
        (another_tokenizer, "their ids mean different things"),
        (unknown_field, "unitone: unknown field 'heads'"),
        (newer_format, "has format 9; this version reads 1 to 2"),
        (unknown_family, "a model of the family .*; this version has decoder, t2v2: use the"),
        (plain, 'no "unitone" part: not written by Unitone'),
        (shutil.rmtree, "no such directory"),
    ],
)
def test_damage_is_named(saved: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(saved)
    with pytest.raises(UnitoneError, match=message):
        read(saved)


def test_export_leaves_out_what_llama_has_not(
    saved: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "plain"
    for _ in range(2):  # an earlier export is replaced
        assert export.main(["--model", str(saved), "--out", str(out), "--precision", "bf16"]) == 0
    assert "no place for the projections of features" in capfd.readouterr().err
    tensors = load_file(out / "model.safetensors")
    assert not [name for name in tensors if name.startswith("unitone")]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["torch_dtype"], config["model_type"]) == ("bfloat16", "llama")
    assert "unitone" not in config
    generation = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == Vocabulary.load(out).eos_id
    assert Passport.load(out / "tokenizer").text.kind == "bytes"
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert "projections of features" in readme
    (snippet,) = re.findall(r"```python\n(from unitone.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(snippet, found)
    text = Vocabulary.load(out).block("text")
    assert found["ids"] == [text.start + byte for byte in b"hello"]
    assert (out / "model_card.md").is_file()
    with pytest.raises(CheckpointError, match="not written by Unitone"):
        read(out)


def test_the_code_in_the_readme_of_an_export_makes_ids(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export.main(["--model", str(saved), "--out", str(tmp_path / "plain")]) == 0
    readme = (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    start = Vocabulary.load(tmp_path / "plain").block("text").start
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["ids"] == [start + one for one in b"hello"]


def test_an_export_claims_no_engine_that_wants_a_tokenizer(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain"
    assert export.main(["--model", str(saved), "--out", str(out)]) == 0
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert not (out / "tokenizer.json").exists()
    said = readme + cli.help_text() + str(export.ExportConfig.__doc__) + str(export.__doc__)
    assert "ransformers" in readme
    for engine in ("llama.cpp", "vllm", "ollama", "tgi", "tensorrt", "skip-tokenizer-init"):
        assert engine not in said.lower()  # none of them was run


def test_export_refuses(saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: str) -> str:
        assert export.main(["--model", str(saved), *arguments]) == 2
        return capfd.readouterr().err

    assert "--to gguf: there is only hf" in fails("--out", str(tmp_path / "x"), "--to", "gguf")
    assert "is the model itself" in fails("--out", str(saved))
    assert export.main(["--model", str(saved.parent), "--out", str(saved)]) == 2
    assert "is the model itself" in capfd.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "holds other files" in fails("--out", str(tmp_path / "mine"))
    assert "a file is in the way" in fails("--out", str(tmp_path / "mine" / "thesis.tex"))
    another = shutil.copytree(saved, tmp_path / "another")
    assert "holds other files" in fails("--out", str(another))
    assert family.load(saved, device="cpu").table == TASKS_HERE
