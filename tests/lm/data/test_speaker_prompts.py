"""Speech prompts and speaker vectors, from the draw to a model that was trained with them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.lm.conftest import mixture_of, rows, vocabulary
from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm import decode, family, inference, speak
from unitone.lm import train as lm_train
from unitone.lm.data import store
from unitone.lm.data.fields import Fields
from unitone.lm.data.mixture import Item, Mixture, examples
from unitone.lm.data.sources import Source
from unitone.lm.data.speaker_prompts import SpeakerPrompts
from unitone.lm.data.store import TokenStore
from unitone.lm.decoder import template
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import ModelConfig
from unitone.lm.decoder.options import DecoderConfig, Options
from unitone.lm.decoder.template import TASKS, DecoderTask, Decoding
from unitone.lm.decoder.training import table_of
from unitone.lm.options import SourceConfig
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.text.text import ByteText

MakeShards = Callable[..., Path]

LIKE = DecoderTask(
    name="like",
    template="<bos> <task:like> {prompt_units} <sep> {text} <sep> [ {units} <eos> ]",
    emits=("unit",),
    metric="units",
    decoding=Decoding(max_tokens=12),
    prompt_tokens=4,
)
VOICED = dataclasses.replace(
    LIKE, name="voiced", template="<bos> <task:voiced> {voice} {text} <sep> [ {units} <eos> ]"
)
TABLE = (*TASKS, LIKE, VOICED)
VECTORS = {
    "ann": np.array([1, 0, 0], np.float32),
    "bob": np.array([0, 1, 0], np.float32),
    "r5": np.array([0, 0, 1], np.float32),
}


@pytest.fixture(scope="module")
def voice_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "voices.safetensors"
    save_file(VECTORS, path)
    return path


def opened(
    folder: Path, out: Path, *, embeddings: Path | None = None, split: tuple[str, ...] | None = None
) -> tuple[TokenStore, PromptFormatter]:
    shards = TokenShards(folder)
    words = vocabulary(tables=TABLE, passport=shards.passport.hash)
    formatter = PromptFormatter(Fields.open(folder / "tokenizer", words))
    built = store.build(
        out, shards=shards, fields=formatter.fields, split=split, embeddings=embeddings
    )
    return built, formatter


def mixture(
    tokens: TokenStore, formatter: PromptFormatter, *table: DecoderTask, **changes: Any
) -> Mixture:
    return mixture_of(tokens, formatter, table, **changes)


def flat(plan: list[list[list[Item]]]) -> list[Item]:
    return [item for batch in plan for row in batch for item in row]


@given(
    corpus=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 5)), min_size=1, max_size=20),
    seed=st.integers(0, 5),
)
def test_a_sample_is_another_utterance_of_the_speaker(
    corpus: list[tuple[int, int]], seed: int
) -> None:
    speakers, sizes = (np.array(column) for column in zip(*corpus, strict=True))
    samples = SpeakerPrompts(speakers, sizes)
    for row, speaker in enumerate(speakers):
        others = {
            other
            for other in range(len(speakers))
            if other != row and speakers[other] == speaker >= 0 and sizes[other]
        }
        assert (samples.longest[row] > 0) == bool(others)
        if not others:
            continue
        drawn = samples.draw(row, seeding.stream(seed, row))
        assert drawn in others
        assert sizes[drawn] <= samples.longest[row]
        assert drawn == samples.draw(row, seeding.stream(seed, row))
        draws = seeding.stream(seed, "many")
        assert {samples.draw(row, draws) for _ in range(40 * len(others))} == others


def test_the_sample_stands_where_the_template_says_and_is_cut() -> None:
    words = vocabulary(tables=TABLE)
    formatter = PromptFormatter(Fields(vocabulary=words, text=ByteText(), subwords=None))
    row = {"id": "u", "text": "a", "units": [7, 8], "prompt_units": [1, 2, 3, 4, 5]}
    record = formatter.fields.record(row)
    spelled = [words.describe(int(one)) for one in formatter.example(LIKE, record).tokens]
    text = [words.describe(int(one)) for one in record["text"]]
    assert spelled == [
        *("<bos>", "<task:like>", "unit:1", "unit:2", "unit:3", "unit:4", "<sep>"),
        *(*text, "<sep>", "unit:7", "unit:8", "<eos>"),
    ]
    null = formatter.example(LIKE, record, null=True)
    masked = [words.describe(int(one)) for one in null.tokens[2:6]]
    assert masked == ["<mask>", "<sep>", "<mask>", "<sep>"]
    prompt = formatter.prompt(LIKE, record, prefix=1)
    assert len(prompt) == len(spelled) - 2
    with pytest.raises(ConfigError, match="task like: prompt_tokens must be 1 or more, got 0"):
        dataclasses.replace(LIKE, prompt_tokens=0)


@pytest.mark.parametrize("packing", [False, True])
def test_prompts_are_drawn_again_and_again_but_always_alike(
    packing: bool, make_shards: MakeShards, tmp_path: Path
) -> None:
    table = [
        row | {"units": [n // 6, 6 + n % 6, 0, 1, 2], "durations": [2] * 5}
        for n, row in enumerate(rows(36))
    ]
    data = make_shards(table)
    source = mixture(*opened(data, tmp_path / "a"), LIKE, packing=packing)
    again = mixture(*opened(data, tmp_path / "b"), LIKE, packing=packing)
    found, _, costs = source._examples[0]
    lengths = dict(zip(found.tolist(), (costs + 1).tolist(), strict=True))
    drawn: dict[int, set[str]] = {}
    for number in (7, 2, 0):  # a resumed run asks in another order
        for spec in source.plan(number):
            assert torch.equal(source.load(spec).tokens, again.load(spec).tokens)
            assert source.load(spec).tokens.numel() <= 256
        for item in flat(source.plan(number)):
            example = source._example(item)
            assert len(example) <= lengths[item.row]
            drawn.setdefault(item.row, set()).add(str(example.tokens[2:6].tolist()))
            own = table[item.row]
            others = [one for one in table if one["speaker"] == own["speaker"] and one is not own]
            prompt = [vocabulary(tables=TABLE).describe(int(one)) for one in example.tokens[2:6]]
            assert prompt in [[f"unit:{unit}" for unit in one["units"][:4]] for one in others]
    assert all(len(prompts) > 1 for prompts in drawn.values())


def test_who_has_no_other_utterance_is_no_example(make_shards: MakeShards, tmp_path: Path) -> None:
    table = rows(6)
    speakers = ["ann", "ann", "bob", None, None, "ann"]
    for row, speaker in zip(table, speakers, strict=True):
        row["speaker"] = speaker
    table[5]["units"], table[5]["durations"] = [], []
    tokens, formatter = opened(make_shards(table), tmp_path / "store")
    batching = mixture_of(tokens, formatter, [LIKE], context=400, max_tokens=400).batching
    found, _, costs = examples(tokens, batching, 0, name="like")
    assert found.tolist() == [0, 1]
    fixed = 5 + LIKE.prompt_tokens  # and <bos> <task:like> <sep> <sep> <eos>
    assert (costs + 1).tolist() == [fixed + len(table[row]["text"]) + 6 for row in (0, 1)]
    lonely = make_shards([row | {"speaker": row["id"]} for row in rows(6)], folder="lonely")
    complaint = "prompt_units is missing: that takes a speaker with two utterances"
    with pytest.raises(ConfigError, match=complaint):
        mixture(*opened(lonely, tmp_path / "other"), LIKE)


def test_a_voice_is_the_utterances_own_or_its_speakers(
    voice_file: Path, make_shards: MakeShards, tmp_path: Path
) -> None:
    table = rows(12)
    data = make_shards(table)
    tokens, formatter = opened(data, tmp_path / "store", embeddings=voice_file)
    assert tokens.voice_width == 3
    for number, row in enumerate(table):
        name = "r5" if row["id"] == "r5" else row["speaker"]
        np.testing.assert_array_equal(tokens.record(number)["voice"], VECTORS[name])
    source = mixture(tokens, formatter, VOICED)
    for spec in source.plan(0):
        batch = source.load(spec)
        voices = batch.vectors["voice"]
        assert voices.values.shape == (len(batch.tokens), 3)
        assert torch.equal(voices.where.nonzero()[:, 1], torch.full((len(batch.tokens),), 2))
        for (item,), vector in zip(spec, voices.values, strict=True):
            np.testing.assert_array_equal(vector.numpy(), tokens.record(item.row)["voice"])
    plain, _ = opened(data, tmp_path / "store")
    assert plain.voice_width == 0
    assert plain.identity != tokens.identity
    with pytest.raises(ConfigError, match="give the speaker embeddings with --speaker-embeddings"):
        mixture(plain, formatter, VOICED)


def test_an_utterance_without_a_voice_is_named(make_shards: MakeShards, tmp_path: Path) -> None:
    save_file({"ann": VECTORS["ann"]}, tmp_path / "v.safetensors")
    with pytest.raises(
        ConfigError, match="--speaker-embeddings: none for utterance 'r0' or its speaker 'bob'"
    ):
        opened(make_shards(rows(4)), tmp_path / "store", embeddings=tmp_path / "v.safetensors")


def test_validation_leaves_out_an_utterance_without_a_voice(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    path = tmp_path / "v.safetensors"
    save_file({"ann": VECTORS["ann"]}, path)
    shards = TokenShards(make_shards(rows(4)))
    _, formatter = opened(tmp_path / "tokens", tmp_path / "other")
    found = store.build(
        tmp_path / "store",
        shards=shards,
        fields=formatter.fields,
        split=None,
        embeddings=path,
        validating=True,
    )
    assert found.sizes("voice").tolist() == [int(row["speaker"] == "ann") for row in rows(4)]
    assert "voice" not in found.record(0)
    np.testing.assert_array_equal(found.record(1)["voice"], VECTORS["ann"])


def test_prompt_tokens_by_hand_replace_those_of_the_row() -> None:
    config = DecoderConfig(
        tokens=Path("d"), out=Path("o"), options=Options(prompt_tokens=20), tasks=("asr",)
    )
    assert [row.prompt_tokens for row in table_of(config)] == [20]
    with pytest.raises(ConfigError, match="--prompt-tokens must be at least 1, got 0"):
        Options(prompt_tokens=0)


@pytest.fixture(scope="module")
def trained(voice_file: Path, world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two steps, with a table that a user has added two rows to."""
    out = tmp_path_factory.mktemp("trained") / "run"
    options = ["--tokens", world.tokens, "--out", out, "--config", "lm-tiny"]
    options += ["--tasks", "asr", "like", "voiced", "--speaker-embeddings", voice_file]
    options += ["--prompt-tokens", 30]
    options += ["--decoder", world.model / "decoder", "--valid-split", "train", "--device", "cpu"]
    options += ["--steps", 2, "--validate-every", 2, "--threads", 1, "--log-every", 1]
    with pytest.MonkeyPatch.context() as patched:  # what comes after reads the model's own rows
        patched.setitem(template.TABLES, "unitone", TABLE)
        assert lm_train.main([*map(str, options)]) == 0
    return out


def test_from_shards_to_samples_and_voices(
    trained: Path, voice_file: Path, world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    (validation,) = [line["validation"] for line in lines if "validation" in line]
    assert {"like/loss", "voiced/loss", "asr/wer"} <= validation.keys()
    loaded = family.load(trained / "last", device="cpu")
    assert isinstance(loaded.model.config, ModelConfig)
    assert loaded.model.config.voice == 3
    assert {task.prompt_tokens for task in loaded.table} == {30}

    def run(task: str, name: str, *options: object) -> int:
        words = ["--model", trained / "last", "--task", task, "--out", tmp_path / f"{name}.jsonl"]
        return decode.main([*map(str, [*words, *options]), "--device", "cpu"])

    tokens = ("--tokens", world.tokens)
    for name in ("one", "two"):
        assert run("like", name, *tokens) == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert len((tmp_path / "one.jsonl").read_text().splitlines()) == len(world.ids)
    assert run("like", "a", "--manifest", world.manifest) == 2
    assert "speaker prompts come from shards" in capsys.readouterr().err
    for name, source in (("shards", tokens), ("manifest", ("--manifest", world.manifest))):
        assert run("voiced", name, *source, "--speaker-embeddings", voice_file) == 0
    assert (tmp_path / "shards.jsonl").read_text() == (tmp_path / "manifest.jsonl").read_text()
    assert run("voiced", "b", *tokens) == 2
    assert "reads {voice}: give speaker embeddings" in capsys.readouterr().err
    assert run("asr", "c", *tokens, "--speaker-embeddings", voice_file) == 2
    assert "reads no {voice}" in capsys.readouterr().err
    wide, few = tmp_path / "wide.safetensors", tmp_path / "few.safetensors"
    save_file({"ann": np.ones(4, np.float32)}, wide)
    assert run("voiced", "d", *tokens, "--speaker-embeddings", wide) == 2
    assert "vectors of 4 numbers, the model takes 3" in capsys.readouterr().err
    save_file({"ann": VECTORS["ann"]}, few)
    assert run("voiced", "few", *tokens, "--speaker-embeddings", few) == 0
    skipped = (tmp_path / "few.skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in skipped] == ["u0", "u2", "u4"]
    assert "has no voice, which task voiced needs" in skipped[0]


def test_speaking_after_a_sample(trained: Path, world: Any, tmp_path: Path) -> None:
    model = inference.load(trained / "last", device="cpu")
    recording = world.manifest.parent / "1.wav"
    wave, rate = model.speak("sentence 2", prompt=recording)
    assert rate == 16_000
    assert np.isfinite(wave).all()
    out = tmp_path / "a.wav"
    options = ["sentence 2", "--prompt", recording, "--model", trained / "last", "--out", out]
    assert speak.main([*map(str, options), "--device", "cpu"]) == 0
    assert out.is_file()
    with pytest.raises(ConfigError, match="this model follows no prompt"):
        inference.load(world.model, device="cpu").speak("sentence 2", prompt=recording)


def drawn(corpus: Source) -> dict[str, list[int]]:
    read = [row for row in corpus.read(range(len(corpus))) if isinstance(row, dict)]
    return {row["id"]: row["prompt_units"].tolist() for row in read}


def test_samples_in_decoding_are_of_the_whole_corpus(trained: Path, world: Any) -> None:
    loaded = family.load(trained / "last", device="cpu")
    corpus = list(TokenShards(world.tokens).rows())
    speakers = {row["id"]: row["speaker"] for row in corpus}
    needs = frozenset({"prompt_units", "text"})
    whole = Source(SourceConfig(tokens=world.tokens), loaded, needs=needs)
    found = drawn(whole)
    for name, sample in found.items():
        of = [row["id"] for row in corpus if row["units"] == sample and row["id"] != name]
        assert speakers[name] in {speakers[one] for one in of}
    test = Source(SourceConfig(tokens=world.tokens, split="test"), loaded, needs=needs)
    assert drawn(test) == {name: found[name] for name in ("u4", "u5")}


def test_voices_that_no_task_reads(
    voice_file: Path, make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tokens", make_shards(rows(8)), "--out", tmp_path / "run", "--steps", 1]
    options += ["--speaker-embeddings", voice_file, "--device", "cpu"]
    assert lm_train.main([*map(str, options)]) == 2
    assert "--speaker-embeddings: no task reads {voice}" in capsys.readouterr().err
