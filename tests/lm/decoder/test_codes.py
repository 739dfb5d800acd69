"""Codes of a codec in a language model: laid out, learnt by heart, generated, read back."""

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.conftest import mixture_of, rows, vocabulary
from unitone import seeding
from unitone.errors import ConfigError, CorpusError
from unitone.lm import memory
from unitone.lm.data.fields import Fields
from unitone.lm.data.mixture import Item, Mixture
from unitone.lm.data.store import TokenStore
from unitone.lm.decoder import generation, template
from unitone.lm.decoder.batch import collate
from unitone.lm.decoder.generation import Hypothesis
from unitone.lm.decoder.layout import Example, PromptFormatter
from unitone.lm.decoder.model import NONE, LanguageModel, ModelConfig
from unitone.lm.decoder.objective import NextToken
from unitone.lm.decoder.predictor import log_likelihoods
from unitone.lm.decoder.template import CODES, DecoderTask, Decoding
from unitone.lm.jobs import memory as memory_job
from unitone.lm.options import Pattern
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.text.text import ByteText

pytestmark = pytest.mark.usefixtures("one_thread")

BY_NAME = {task.name: task for task in CODES}
TTS, ASR, CONTINUE = BY_NAME["tts"], BY_NAME["asr"], BY_NAME["continue"]
SIZE = 5
GREEDY = Decoding(max_tokens=60)
PATTERNS: tuple[Pattern, ...] = ("delay", "flat")


def formatter_of(pattern: Pattern, levels: int = 3) -> PromptFormatter:
    words = vocabulary(tables=CODES, codes=(SIZE,) * levels)
    return PromptFormatter(
        Fields(vocabulary=words, text=ByteText(), subwords=None), pattern=pattern
    )


def codes_of(number: int, levels: int = 3) -> np.ndarray:
    generator = seeding.stream(0, "codes", number)
    return generator.integers(SIZE, size=(levels, 3 + number % 4)).astype(np.int32)


def records_of(formatter: PromptFormatter, count: int = 5, levels: int = 3) -> list[dict[str, Any]]:
    """Return utterances with different texts."""
    return [
        formatter.fields.record(row | {"codes": codes_of(number, levels), "text": f"say {number}"})
        for number, row in enumerate(rows(count))
    ]


def model_of(formatter: PromptFormatter, *, scale: float = 1.0, dim: int = 48) -> LanguageModel:
    shape = TransformerConfig(dim=dim, layers=2, heads=4, kv_heads=4, ffn=2 * dim)
    config = ModelConfig(transformer=shape, vocab_size=len(formatter.vocabulary), context=128)
    model = LanguageModel(config, generator=seeding.torch_generator(0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model


@cache
def learnt(pattern: Pattern, levels: int, task: DecoderTask) -> LanguageModel:
    """Return a model that knows the targets of `records_of` by heart, of ``continue`` the last."""
    formatter = formatter_of(pattern, levels)
    records = records_of(formatter, levels=levels)[-1 if task is CONTINUE else 0 :]
    batch = collate([[(0, formatter.example(task, record))] for record in records])
    model = model_of(formatter)
    network = NextToken(model, vocabulary=formatter.vocabulary, tasks=[task.name])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = network(batch)
        mean = loss.total / loss.count
        if float(mean.detach()) < 0.01:
            return model.eval()
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
    raise AssertionError(f"not learnt: {float(mean.detach())}")


def generate(
    formatter: PromptFormatter,
    model: LanguageModel,
    prompts: list[Example],
    task: DecoderTask = TTS,
    decoding: Decoding = GREEDY,
    **options: Any,
) -> list[Hypothesis]:
    return generation.generate(
        model,
        prompts,
        allowed=formatter.allowed(task),
        eos=formatter.vocabulary.eos_id,
        decoding=decoding,
        levels=formatter.levels(task),
        **options,
    )


@given(
    levels=st.integers(1, 4),
    frames=st.integers(1, 5),
    pattern=st.sampled_from(PATTERNS),
    seed=st.integers(0, 99),
)
def test_what_is_laid_out_can_be_read_back(
    levels: int, frames: int, pattern: Pattern, seed: int
) -> None:
    formatter = formatter_of(pattern, levels)
    codes = np.random.default_rng(seed).integers(SIZE, size=(levels, frames))
    record = formatter.fields.record(rows(1)[0] | {"codes": codes})
    example = formatter.example(TTS, record)
    target = example.tokens[example.target]
    assert (target != NONE).sum() == levels * frames + 1
    assert len(target) == max(
        int(formatter.codes.length(np.array([frames]))[0]), formatter.codes.begun(frames) + 1
    )
    if formatter.codes.delayed:  # the end stands where level 0 would go on
        assert target[frames, 0] == formatter.vocabulary.eos_id
        chosen = [target[t + q, q] for t in range(frames) for q in range(levels)]
    else:
        chosen = target.tolist()
    output = formatter.prediction(TTS, [int(token) for token in chosen])
    assert output.codes is not None
    np.testing.assert_array_equal(output.codes, codes)
    assert output.speech is output.codes


def test_what_follows_a_tail_in_the_condition_waits_for_its_end() -> None:
    formatter = formatter_of("delay")
    (record,) = records_of(formatter, 1)
    tokens = formatter.example(ASR, record).tokens
    (separator,) = np.flatnonzero(tokens[:, 0] == formatter.vocabulary.id("<sep>"))
    assert separator == 2 + codes_of(0).shape[1] + 2
    assert (tokens[separator, 1:] == NONE).all()
    assert tokens[separator - 1].tolist()[:2] == [NONE, NONE]


def test_a_target_may_go_on_behind_codes() -> None:
    task = DecoderTask(
        name="tts",
        template="<bos> <task:tts> [ {codes} {text} <eos> ] <sep> [ {codes} <eos> ]",
        emits=("code", "text"),
        metric="units",
    )
    formatter = formatter_of("delay")
    (record,) = records_of(formatter, 1)
    example = formatter.example(task, record)
    frames, letters = codes_of(0).shape[1], len("say 0")
    assert len(example) == 2 + (frames + 2 + letters + 1 - 2) + 1 + (frames + 2)
    assert example.tokens[2 + frames, 0] == record["text"][0]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("levels", [1, 3])
def test_codes_learnt_by_heart_are_generated_exactly(pattern: Pattern, levels: int) -> None:
    formatter = formatter_of(pattern, levels)
    records = records_of(formatter, levels=levels)
    model = learnt(pattern, levels, TTS)
    prompts = [formatter.prompt(TTS, record) for record in records]
    together = generate(formatter, model, prompts)
    for number, (found, given_prompt) in enumerate(zip(together, prompts, strict=True)):
        codes = formatter.prediction(TTS, found.tokens).codes
        assert codes is not None
        np.testing.assert_array_equal(codes, codes_of(number, levels))
        assert not found.truncated
        (alone,) = generate(formatter, model, [given_prompt])
        assert alone.tokens == found.tokens
        assert alone.score == pytest.approx(found.score, abs=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_recognition_from_codes_is_learnt_by_heart(pattern: Pattern) -> None:
    formatter = formatter_of(pattern)
    records = records_of(formatter)
    model = learnt(pattern, 3, ASR)
    found = generate(formatter, model, [formatter.prompt(ASR, one) for one in records], ASR)
    assert [formatter.prediction(ASR, one.tokens).text for one in found] == [
        f"say {number}" for number in range(5)
    ]
    right = [formatter.example(ASR, record) for record in records]
    other = [formatter.example(ASR, {**one, "codes": records[0]["codes"]}) for one in records[1:]]
    assert min(log_likelihoods(model, right)) > max(log_likelihoods(model, other))


@torch.no_grad()
def uncached(
    formatter: PromptFormatter, model: LanguageModel, example: Example, most: int
) -> list[int]:
    """Greedy choice with a delay, everything computed again for every position."""
    levels = formatter.vocabulary.codes
    first = formatter.allowed(TTS)
    for block in levels[1:]:
        first[block.start : block.end] = False
    prompt = example.tokens.reshape(len(example), -1)
    tokens = np.full((len(prompt), len(levels)), NONE)
    tokens[:, : prompt.shape[1]] = prompt
    ended = False
    for step in range(most):
        logits = model.head(model(torch.from_numpy(tokens)[None])[0, -1])
        cells = [NONE] * len(levels)
        for level, block in enumerate(levels):
            before = len(tokens) - level
            if level and not (step - level >= 0 and int(tokens[before, 0]) in levels[0]):
                continue
            if level:
                cells[level] = block.start + int(logits[block.start : block.end].argmax())
            elif not ended:
                cells[0] = int(logits.masked_fill(~first, -torch.inf).argmax())
                ended = cells[0] == formatter.vocabulary.eos_id
        if cells == [NONE] * len(levels):
            break
        tokens = np.concatenate((tokens, [cells]))
    chosen = tokens[len(prompt) :]
    frames = [t for t in range(len(chosen) - len(levels) + 1) if int(chosen[t, 0]) in levels[0]]
    return [int(chosen[t + q, q]) for t in frames for q in range(len(levels))]


def test_a_cache_and_neighbors_change_nothing_with_a_delay() -> None:
    formatter = formatter_of("delay")
    model = model_of(formatter, scale=12.0, dim=16).eval()
    prompts = [formatter.prompt(TTS, record) for record in records_of(formatter, 6)]
    prompts = [
        dataclasses.replace(p, tokens=p.tokens[-6 - n :], target=p.target[-6 - n :])
        for n, p in enumerate(prompts)
    ]
    decoding = Decoding(max_tokens=24)
    together = generate(formatter, model, prompts, decoding=decoding)
    assert len({tuple(one.tokens) for one in together}) > 1
    for example, found in zip(prompts, together, strict=True):
        assert found.tokens == uncached(formatter, model, example, 24)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_draws_of_a_row_do_not_depend_on_its_neighbors(pattern: Pattern) -> None:
    formatter = formatter_of(pattern)
    model = model_of(formatter, scale=4.0, dim=16).eval()
    prompts = [formatter.prompt(TTS, record) for record in records_of(formatter, 6)]
    drawing = Decoding(temperature=1.0, max_tokens=30)

    def streams(numbers: range) -> list[np.random.Generator]:
        return [seeding.stream(1, n) for n in numbers]

    together = generate(formatter, model, prompts, decoding=drawing, generators=streams(range(6)))
    assert len({tuple(one.tokens) for one in together}) > 3
    for number, found in enumerate(together):
        alone = generate(
            formatter,
            model,
            [prompts[number]],
            decoding=drawing,
            generators=streams(range(number, number + 1)),
        )
        assert alone[0].tokens == found.tokens


@pytest.mark.parametrize(
    ("pattern", "changes"),
    [
        ("delay", {}),
        ("delay", {"temperature": 1.0}),
        ("delay", {"repetition_penalty": 1.5, "no_repeat": 2, "min_tokens": 5}),
        ("flat", {}),
        ("flat", {"temperature": 1.0}),
        ("flat", {"beam": 3}),
        ("flat", {"no_repeat": 2, "min_tokens": 5}),
    ],
)
@pytest.mark.parametrize("most", [1, 2, 7, 30])
def test_only_codes_of_the_right_level_are_generated(
    pattern: Pattern, changes: dict[str, Any], most: int
) -> None:
    formatter = formatter_of(pattern)
    model = model_of(formatter, scale=6.0, dim=16).eval()
    prompts = [formatter.prompt(TTS, record) for record in records_of(formatter, 4)]
    decoding = Decoding(max_tokens=most, **({"min_tokens": 0} | changes | {"min_tokens": 0}))
    for found in generate(formatter, model, prompts, decoding=decoding):
        for place, token in enumerate(found.tokens):
            assert token in formatter.vocabulary.codes[place % 3]
        codes = formatter.prediction(TTS, found.tokens).codes
        assert codes is not None
        assert codes.shape == (3, len(found.tokens) // 3)
        room = most - 2 if pattern == "delay" else most // 3
        assert codes.shape[1] <= max(room, 0)
        if found.truncated:
            assert codes.shape[1] == max(room, 0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("prefix", [1, 2, 3])
def test_speech_goes_on_behind_given_codes(pattern: Pattern, prefix: int) -> None:
    formatter = formatter_of(pattern)
    record = records_of(formatter)[-1]
    model = learnt(pattern, 3, CONTINUE)
    example = formatter.prompt(CONTINUE, record, prefix=prefix)
    start = len(formatter.prompt(CONTINUE, record))
    before = formatter.given(CONTINUE, record, example.tokens[start:], prefix)
    (found,) = generate(formatter, model, [example], CONTINUE)
    codes = formatter.prediction(CONTINUE, [*before, *found.tokens]).codes
    assert codes is not None
    np.testing.assert_array_equal(codes, codes_of(4))
    assert formatter.size(CONTINUE, record) == codes_of(4).shape[1]


def test_guidance_works_in_streams() -> None:
    formatter = formatter_of("delay")
    records = records_of(formatter)
    model = learnt("delay", 3, TTS)
    prompts = [formatter.prompt(TTS, record) for record in records]
    nulls = [formatter.prompt(TTS, record, null=True) for record in records]
    same = dataclasses.replace(GREEDY, guidance=1.2)
    found = generate(formatter, model, prompts, decoding=same, nulls=nulls)
    plain = generate(formatter, model, prompts)
    assert [one.tokens for one in found] == [one.tokens for one in plain]


def test_beams_are_refused_where_levels_are_delayed() -> None:
    formatter = formatter_of("delay")
    model = model_of(formatter, dim=16)
    prompts = [formatter.prompt(TTS, record) for record in records_of(formatter, 1)]
    with pytest.raises(ConfigError, match=r"no beam search over codes with a delay.*flat"):
        generate(formatter, model, prompts, decoding=Decoding(beam=2))


def test_a_task_emits_all_levels_or_none() -> None:
    formatter = formatter_of("flat")
    task = dataclasses.replace(TTS, emits=("code/0", "code/2"))
    with pytest.raises(ConfigError, match="emits code/0, code/2 and not code/1: say code"):
        formatter.check(task)
    assert formatter.levels(ASR) is None


def test_codes_come_one_by_one_in_the_flat_pattern() -> None:
    for pattern in PATTERNS:
        formatter = formatter_of(pattern)
        example = formatter.prompt(TTS, records_of(formatter, 1)[0])
        tokens = generation.stream(
            learnt(pattern, 3, TTS),
            example,
            allowed=formatter.allowed(TTS),
            eos=formatter.vocabulary.eos_id,
            decoding=GREEDY,
            levels=formatter.levels(TTS),
        )
        if pattern == "flat":
            codes = formatter.prediction(TTS, list(tokens)).codes
            assert codes is not None
            np.testing.assert_array_equal(codes, codes_of(0))
        else:
            with pytest.raises(ConfigError, match="in the flat pattern"):
                next(tokens)


def test_codes_that_cannot_be_are_named() -> None:
    formatter = formatter_of("flat")
    row = rows(1)[0]
    with pytest.raises(CorpusError, match="r0: id 5 is not in block 'code/1'"):
        formatter.fields.record(row | {"codes": [[0, 1], [0, 5], [0, 1]]})
    with pytest.raises(CorpusError, match=r"r0: codes of shape \(2, 2\).*3 levels"):
        formatter.fields.record(row | {"codes": [[0, 1], [0, 1]]})
    whole = formatter.fields.record(row | {"codes": codes_of(0, 4)})  # levels more are left out
    np.testing.assert_array_equal(formatter.fields.codes_of(whole["codes"]), codes_of(0, 4)[:3])


class Memory(TokenStore):
    """A store that isn't on the disk."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records
        self.identity = "memory"
        self.languages = []
        self.ids = [record["id"] for record in records]

    def record(self, row: int, **_: Any) -> dict[str, Any]:
        return self.records[row]

    def __len__(self) -> int:
        return len(self.records)

    def examples(self, fields: Sequence[str], *, task: str) -> list[tuple[int, np.ndarray]]:
        return [(-1, np.arange(len(self)))]

    def sizes(self, name: str, to: int = -1) -> np.ndarray:
        return np.array([np.shape(record.get(name, ()))[-1:] or (0,) for record in self.records])[
            :, 0
        ]


def mixture(formatter: PromptFormatter, **settings: Any) -> Mixture:
    tokens = Memory(records_of(formatter))
    changes = {"max_tokens": 64, "window_examples": 30, **settings}
    return mixture_of(tokens, formatter, (ASR, TTS), seed=0, **changes)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_packed_streams_do_not_see_each_other(pattern: Pattern) -> None:
    formatter = formatter_of(pattern)
    model = model_of(formatter, scale=4.0).eval()
    network = NextToken(model, vocabulary=formatter.vocabulary, tasks=["asr", "tts"])
    sums = []
    for packing in (False, True):
        source = mixture(formatter, packing=packing)
        losses = [network(source.load(spec)) for spec in source.plan(0)]
        assert any(len(row) > 1 for spec in source.plan(0) for row in spec) == packing
        count = sum(int(loss.count) for loss in losses)
        sums.append((sum(float(loss.total.detach()) for loss in losses) / count, count))
    assert sums[0][1] == sums[1][1]
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_hide_codes_of_conditions_only(pattern: Pattern) -> None:
    formatter = formatter_of(pattern)
    mask = formatter.vocabulary.id("<mask>")
    hidden, whole = 0, 0
    for number, task in ((0, ASR), (1, TTS)):
        for record_number, record in enumerate(records_of(formatter)):
            item = Item(task=number, row=record_number, to=-1, draw=record_number)
            found = mixture(formatter, unit_mask=0.5)._example(item)
            plain = formatter.example(task, record)
            changed = (found.tokens != plain.tokens).reshape(len(plain), -1).any(axis=1)
            assert not (changed & plain.target).any()
            if task is TTS:
                assert not changed.any()
                continue
            cells = found.tokens.reshape(len(plain), -1)[changed]
            assert (cells[:, 0] == mask).all()
            assert (cells[:, 1:] == NONE).all()
            hidden, whole = hidden + int(changed.sum()), whole + codes_of(record_number).shape[1]
    assert 0 < hidden < whole


def test_streams_are_counted_in_the_memory_that_is_measured() -> None:
    config = memory.MemoryConfig(config="lm-tiny", gib=1.0, vocab_size=100, code_levels=4)
    words, tokens = memory_job._drawn(config, 2, 5)
    assert tokens.shape == (2, 5, 4)
    assert len(words) <= 100
    for level, block in enumerate(words.codes[1:], start=1):
        assert all(int(token) in block for token in tokens[..., level].flatten())
    with pytest.raises(ConfigError, match="--code-levels must be at least 1"):
        memory.MemoryConfig(gib=1.0, code_levels=0)


def test_rows_of_a_file_join_the_table(tmp_path: Path) -> None:
    row = {
        "name": "asr",
        "template": "<asr> {codes} <sep> [ {text} <eos> ]",
        "emits": ["text"],
        "metric": "wer",
        "decoding": {"beam": 4},
    }
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row, row | {"name": "mine"}]))
    rows_of_file = template.read(path)
    assert rows_of_file[0].decoding == Decoding(beam=4)
    names = [task.name for task in template.extended(CODES, rows_of_file)]
    assert names == ["asr", "tts", "continue", "mine"]
    assert template.extended(CODES, rows_of_file)[0].template == row["template"]
    path.write_text(json.dumps([row | {"templates": "x"}]))
    with pytest.raises(ConfigError, match="row 0: unknown field 'templates'"):
        template.read(path)
    with pytest.raises(ConfigError, match=r"--rows .*none\.json"):
        template.read(tmp_path / "none.json")
    path.write_text("{}")
    with pytest.raises(ConfigError, match="expected a list of rows"):
        template.read(path)
