"""Starting from a text model: its weights, the rows we share, the rows we don't."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.lm.conftest import PASSPORT
from unitone.config import from_dict, to_dict
from unitone.errors import CheckpointError, ConfigError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.interop.llama import llama_config, read_llama_config, to_llama
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.opt_weights import opt_config, to_opt
from unitone.lm.interop.pretrained import Pretrained, extend_table, initialize, read
from unitone.lm.interop.token_rows import shared_rows
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.text.text import CharacterText, SentencePieceText

SHAPE = TransformerConfig(dim=16, layers=2, heads=2, kv_heads=1, ffn=24)
CONFIG = ModelConfig(transformer=SHAPE, vocab_size=90, context=64, tied=False)
OURS = Vocabulary.build(text=20, units=30)
THEIRS = Vocabulary.build(text=81)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_llama(folder: Path, config: ModelConfig = CONFIG, **changes: Any) -> LanguageModel:
    model = LanguageModel(config, generator=generator())
    values = llama_config(config, THEIRS, dtype="float32") | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    tensors = {n: t.contiguous() for n, t in to_llama(model.state_dict(), config).items()}
    save_file(tensors, folder / "model.safetensors")
    return model


def start(config: ModelConfig) -> LanguageModel:
    ours = dataclasses.replace(config, vocab_size=len(OURS))
    return LanguageModel(ours, generator=generator(1)).eval()


@torch.no_grad()
def test_shared_tokens_behave_as_before(tmp_path: Path) -> None:
    theirs = write_llama(tmp_path)
    pretrained, text = read(tmp_path), OURS.block("text").start
    model = start(CONFIG)
    rows = {text + number: 50 + number for number in range(20)}
    taken = initialize(model, pretrained, rows=rows, generator=generator())
    assert (taken.old, taken.new) == (20, len(OURS) - 20)
    tokens = torch.arange(text, text + 20)[None]
    ours = model.head(model(tokens))[..., text : text + 20]
    expected = theirs.head(theirs(tokens - text + 50))[..., 50:70]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not model.embedding.weight[len(OURS) :].any()


def test_new_rows_have_the_old_ones_mean_and_covariance() -> None:
    mixing = torch.randn(6, 6, generator=generator(3))
    old = torch.randn(4000, 6, generator=generator()) @ mixing + 5
    new = extend_table(old, {3: 17}, size=4001, generator=generator(1))
    assert torch.equal(new[3], old[17])
    torch.testing.assert_close(new.mean(0), old.mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(new.T.cov(), old.T.cov(), atol=0.5, rtol=0.1)
    again = extend_table(old, {3: 17}, size=4001, generator=generator(1))
    assert torch.equal(new, again)
    assert new.unique(dim=0).shape == new.shape


@given(rows=st.dictionaries(st.integers(0, 11), st.integers(0, 6)))
def test_every_row_is_old_or_finite(rows: dict[int, int]) -> None:
    old = torch.randn(7, 9, generator=generator())  # fewer rows than dimensions
    new = extend_table(old, rows, size=12, generator=generator())
    assert new.shape == (12, 9)
    assert new.isfinite().all()
    assert all(torch.equal(new[token], old[row]) for token, row in rows.items())


def test_a_tied_start_fills_an_untied_model(tmp_path: Path) -> None:
    write_llama(tmp_path, dataclasses.replace(CONFIG, tied=True))
    model = start(CONFIG)
    initialize(model, read(tmp_path), rows={4: 2}, generator=generator())
    assert model.output is not None
    assert torch.equal(model.output.weight[4], model.embedding.weight[4])


def test_projections_stay_as_they_are(tmp_path: Path) -> None:
    write_llama(tmp_path)
    model = start(dataclasses.replace(CONFIG, features=3))
    before = model.state_dict()["projections.features.1.weight"].clone()
    initialize(model, read(tmp_path), rows={}, generator=generator())
    assert torch.equal(model.state_dict()["projections.features.1.weight"], before)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_llama(tmp_path)
    pretrained = read(tmp_path)
    model = start(dataclasses.replace(CONFIG, tied=True))
    with pytest.raises(ConfigError, match="set tied=False"):
        initialize(model, pretrained, rows={}, generator=generator())
    wide = dataclasses.replace(SHAPE, ffn=32)
    model = start(dataclasses.replace(CONFIG, transformer=wide))
    with pytest.raises(ConfigError, match="build the model from the pretrained config"):
        initialize(model, pretrained, rows={}, generator=generator())
    with pytest.raises(ValueError, match=r"row 90 is not in 0\.\.89"):
        initialize(start(CONFIG), pretrained, rows={0: 90}, generator=generator())
    with pytest.raises(ValueError, match=r"token 59 is not in 0\.\.58"):
        initialize(start(CONFIG), pretrained, rows={59: 0}, generator=generator())


@torch.no_grad()
def test_opt_with_a_shorter_context(tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, kv_heads=2)
    config = OptConfig(transformer=shape, vocab_size=90, context=40, embed_dim=8, pre_norm=False)
    theirs = OptModel(config, generator=generator())
    values = opt_config(config, THEIRS, dtype="float16")
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    tensors = to_opt(theirs.state_dict(), config)
    torch.save({n: t.clone() for n, t in tensors.items()}, tmp_path / "pytorch_model.bin")
    pretrained = read(tmp_path)
    assert pretrained.config == config
    ours = dataclasses.replace(config, vocab_size=len(OURS), context=10, tied=False)
    model = OptModel(ours)
    taken = initialize(model, pretrained, rows={0: 5, 1: 6}, generator=generator())
    assert taken.old == 2
    tokens = torch.tensor([[0, 1, 1, 0]])
    torch.testing.assert_close(model(tokens), theirs(tokens + 5), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path: Path, suffix: str) -> None:
    theirs = write_llama(tmp_path)
    whole = tmp_path / "model.safetensors"
    tensors = to_llama(theirs.state_dict(), CONFIG)
    whole.unlink()
    names = sorted(tensors)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:5], names[5:])):
        file = f"{stem}-{number}.{suffix}"
        content = {name: tensors[name].clone() for name in part}
        if suffix == "safetensors":
            save_file(content, tmp_path / file)
        else:
            torch.save(content, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    weights = read(tmp_path).weights
    assert torch.equal(weights["embedding.weight"][:90], theirs.embedding.weight[:90])
    (tmp_path / f"{stem}-1.{suffix}").unlink()
    with pytest.raises(CheckpointError, match=f"{stem}-1.{suffix}.*fetch it again"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"model_type": "qwen2"}, "model_type 'qwen2' is not supported; take a llama"),
        ({"rope_scaling": {"rope_type": "yarn"}}, r"config\.json: rope scaling 'yarn'"),
        ({"head_dim": 32}, r"q_proj.weight' is \(16, 16\), not of 64 rows"),
        ({"num_hidden_layers": 3}, "has no tensor 'model.layers.2"),
        ({"vocab_size": 80}, "not of 80 rows"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_llama(tmp_path, CONFIG, **changes)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_sliding_window_cuts_the_context() -> None:
    values = llama_config(CONFIG, THEIRS, dtype="float32") | {"model_type": "mistral"}
    assert read_llama_config(values | {"sliding_window": None}, where="x").context == 64
    assert read_llama_config(values | {"sliding_window": 16}, where="x").context == 16
    old = {n: v for n, v in values.items() if n != "rope_parameters"} | {"rope_theta": 5e5}
    assert read_llama_config(old, where="x").transformer.rope_theta == 5e5


def test_special_tokens(tmp_path: Path) -> None:
    """As in the chat models of Llama 3.1: no padding, three tokens that end a text."""
    write_llama(tmp_path, bos_token_id=80, eos_token_id=[81, 88, 89], pad_token_id=None)
    assert read(tmp_path).specials == {"<bos>": 80, "<eos>": 81}


# ---- which rows are shared -----------------------------------------------------------------------


def train_sentencepiece(size: int, **options: Any) -> bytes:
    model = io.BytesIO()
    lines = ["the cat sat on the mat", "a dog ate the hat", "cats and dogs and hats"] * 3
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=size,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def pieces() -> SentencePieceText:
    return SentencePieceText(
        train_sentencepiece(290, model_type="bpe", bos_id=-1, eos_id=-1, unk_id=0)
    )


def tokenizer_dir(folder: Path, kind: str, size: int) -> Path:
    folder.mkdir()
    values = to_dict(from_dict(Passport, PASSPORT, where="test"))
    values["text"] = {"kind": kind, "size": size, "model_hash": "2" * 64}
    from_dict(Passport, values, where="test").save(folder)
    return folder


def text_model(folder: Path, vocab_size: int = 400) -> Pretrained:
    folder.mkdir()
    config = dataclasses.replace(CONFIG, vocab_size=vocab_size)
    specials = {"<bos>": 1, "<eos>": 2, "<pad>": -1}
    return Pretrained(directory=folder, config=config, weights={}, specials=specials)


def test_the_same_sentencepiece_model_keeps_its_order(
    tmp_path: Path, pieces: SentencePieceText
) -> None:
    pretrained = text_model(tmp_path / "theirs")
    ours = tokenizer_dir(tmp_path / "ours", "sentencepiece", pieces.size)
    pieces.save(ours)
    (pretrained.directory / "tokenizer.model").write_bytes((ours / "text.model").read_bytes())
    vocabulary = Vocabulary.build(text=pieces.size, units=5)
    text = vocabulary.block("text").start
    rows = shared_rows(pretrained, vocabulary, tokenizer=ours)
    specials = {vocabulary.bos_id: 1, vocabulary.eos_id: 2}
    assert rows == specials | {text + number: number for number in range(pieces.size)}


def test_pieces_are_matched_by_what_they_spell(tmp_path: Path, pieces: SentencePieceText) -> None:
    pretrained = text_model(tmp_path / "theirs")
    ours = tokenizer_dir(tmp_path / "ours", "sentencepiece", pieces.size)
    pieces.save(ours)
    model = sentencepiece.SentencePieceProcessor(model_file=str(ours / "text.model"))
    the, newline = model.piece_to_id("▁the"), model.piece_to_id("<0x0A>")
    assert model.id_to_piece(the) == "▁the"
    vocabulary = Vocabulary.build(text=pieces.size)
    text = vocabulary.block("text").start
    byte_level = {"model": {"vocab": {"Ġthe": 7, "Ċ": 9, "Ġzebra": 11, "<s>": 1}}}
    byte_level |= {"decoder": {"type": "ByteLevel"}}  # type: ignore[dict-item]
    byte_level |= {"added_tokens": [{"content": "<s>", "special": True}]}  # type: ignore[dict-item]
    path = pretrained.directory / "tokenizer.json"
    path.write_text(json.dumps(byte_level), encoding="utf-8")
    rows = shared_rows(pretrained, vocabulary, tokenizer=ours)
    specials = {vocabulary.bos_id: 1, vocabulary.eos_id: 2}
    assert rows == specials | {text + the: 7, text + newline: 9}
    unigram = {"model": {"vocab": [["<unk>", 0], ["▁the", -1], ["<0x0A>", -2], ["▁thes", -3]]}}
    path.write_text(json.dumps(unigram), encoding="utf-8")
    rows = shared_rows(pretrained, vocabulary, tokenizer=ours)
    assert rows == specials | {text + the: 1, text + newline: 2}


def test_characters_and_bytes_are_found_in_another_sentencepiece(tmp_path: Path) -> None:
    pretrained = text_model(tmp_path / "theirs")
    path = pretrained.directory / "tokenizer.model"
    path.write_bytes(train_sentencepiece(290, model_type="bpe"))
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    characters = CharacterText("a tß")
    folder = tokenizer_dir(tmp_path / "characters", "characters", characters.size)
    characters.save(folder)
    vocabulary = Vocabulary.build(text=characters.size)
    text = vocabulary.block("text").start
    rows = shared_rows(pretrained, vocabulary, tokenizer=folder)
    assert rows[text + 1] == model.piece_to_id("a")
    assert rows[text + 2] == model.piece_to_id("▁")
    assert text + 4 not in rows  # two bytes, no piece of its own
    assert text not in rows  # <unk>
    folder = tokenizer_dir(tmp_path / "bytes", "bytes", 256)
    vocabulary = Vocabulary.build(text=256)
    text = vocabulary.block("text").start
    rows = shared_rows(pretrained, vocabulary, tokenizer=folder)
    assert len(rows) == 258
    assert rows[text + ord("a")] == model.piece_to_id("a")
    assert rows[text + 0xC3] == model.piece_to_id("<0xC3>")


def test_a_text_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    pretrained = text_model(tmp_path / "theirs")
    folder = tokenizer_dir(tmp_path / "bytes", "bytes", 256)
    with pytest.raises(CheckpointError, match=r"none of tokenizer\.json"):
        shared_rows(pretrained, Vocabulary.build(text=256), tokenizer=folder)
    (pretrained.directory / "tokenizer.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        shared_rows(pretrained, Vocabulary.build(text=256), tokenizer=folder)
