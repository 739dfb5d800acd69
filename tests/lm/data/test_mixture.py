import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.lm.conftest import mixture_of, rows, vocabulary
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data import store
from unitone.lm.data.fields import Fields, Record
from unitone.lm.data.mixture import Item, Mixture, Sizes, examples
from unitone.lm.data.store import TokenStore
from unitone.lm.decoder.batch import DecoderBatching
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.template import TASKS
from unitone.lm.options import MixtureConfig
from unitone.lm.tasks import select
from unitone.tokenizers.shards import TokenShards

MakeShards = Callable[..., Path]


def opened(
    folder: Path, out: Path, split: list[str] | None = None
) -> tuple[TokenStore, PromptFormatter]:
    shards = TokenShards(folder)
    words = vocabulary()
    words.passport = shards.passport.hash
    formatter = PromptFormatter(Fields.open(folder / "tokenizer", words))
    return store.build(out, shards=shards, fields=formatter.fields, split=split), formatter


def mixture(folder: Path, out: Path, **changes: Any) -> Mixture:
    tokens, formatter = opened(folder, out)
    return mixture_of(tokens, formatter, TASKS, **changes)


def flat(plan: list[list[list[Item]]]) -> list[Item]:
    return [item for batch in plan for row in batch for item in row]


def test_the_store_has_the_records_of_the_fields(make_shards: MakeShards, tmp_path: Path) -> None:
    tokens, formatter = opened(make_shards(rows(8)), tmp_path / "store")
    again = pickle.loads(pickle.dumps(tokens))
    for number, row in enumerate(rows(8)):
        ours = again.record(number, to=tokens.languages.index(row["translation"][0]["language"]))
        theirs = formatter.fields.record(row)
        for name in ("units", "text"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        np.testing.assert_array_equal(ours["translation"], theirs["translations"][ours["to"]])
        assert [ours[n] for n in ("id", "language", "gender", "speaker")] == [
            row[n] for n in ("id", "language", "gender", "speaker")
        ]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_lengths_are_those_of_the_examples(
    task: object, make_shards: MakeShards, tmp_path: Path
) -> None:
    tokens, formatter = opened(make_shards(rows(8)), tmp_path / "store")
    (row,) = [one for one in TASKS if one is task]
    batching = mixture_of(tokens, formatter, [row]).batching
    for number, to, cost in zip(*examples(tokens, batching, 0, name=row.name), strict=True):
        record = tokens.record(int(number), to=int(to))
        assert len(formatter.example(row, record)) == cost + 1


def test_a_split_of_nobody(make_shards: MakeShards, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no utterance of split test"):
        opened(make_shards(rows(4)), tmp_path / "store", split=["test"])


def test_a_missing_column_is_named(make_shards: MakeShards, tmp_path: Path) -> None:
    table = [row | {"gender": None} for row in rows(8)]
    with pytest.raises(
        ConfigError, match="task gid: no utterance has units, gender; gender is missing"
    ):
        mixture(make_shards(table), tmp_path / "store")


def test_mixed_passports(make_shards: MakeShards, tmp_path: Path) -> None:
    shards = TokenShards(make_shards(rows(4)))
    words = vocabulary()
    words.passport = "f" * 64
    from unitone.tokenizers.text.text import ByteText

    plain = PromptFormatter(Fields(vocabulary=words, text=ByteText(), subwords=None))
    with pytest.raises(ConfigError, match="the token shards was made with tokenizer"):
        store.build(tmp_path / "store", shards=shards, fields=plain.fields, split=None)


@pytest.mark.parametrize("packing", [False, True])
def test_windows_are_pure_and_cover_everything(
    packing: bool, make_shards: MakeShards, tmp_path: Path
) -> None:
    source = mixture(make_shards(rows(40)), tmp_path / "store", packing=packing, mixing="data")
    assert source.plan(5) == source.plan(5)
    items = [item for number in range(30) for item in flat(source.plan(number))]
    seen = Counter((item.task, item.row, item.to) for item in items)
    total = sum(source.counts().values())
    assert len(seen) == total
    assert max(seen.values()) - min(seen.values()) <= 1  # nothing comes again before all have been
    assert len({(item.task, item.draw) for item in items}) == len(items)


def test_shares_by_hand(make_shards: MakeShards, tmp_path: Path) -> None:
    source = mixture(make_shards(rows(40)), tmp_path / "store")
    items = [item for number in range(20) for item in flat(source.plan(number))]
    found = Counter(item.task for item in items)
    weights = np.array([task.weight for task in TASKS])
    for number, share in enumerate(weights / weights.sum()):
        assert found[number] / len(items) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("packing", [False, True])
def test_batches_keep_to_the_budget_and_lose_nothing(
    packing: bool, make_shards: MakeShards, tmp_path: Path
) -> None:
    source = mixture(make_shards(rows(40)), tmp_path / "store", packing=packing)
    for spec in source.plan(0):
        batch = source.load(spec)
        assert batch.tokens.numel() <= 256
        targets = int((batch.targets != NONE).sum())
        expected = sum(int(source._example(item).target.sum()) for row in spec for item in row)
        assert targets == expected
        if packing:
            assert batch.segments is not None
            assert batch.positions is not None
            starts = (batch.positions == 0) & (batch.segments >= 0)
            assert int(starts.sum()) == sum(map(len, spec))


def test_dropped_conditions_and_hidden_units(make_shards: MakeShards, tmp_path: Path) -> None:
    folder = make_shards(rows(40))
    source = mixture(folder, tmp_path / "store", null_share=0.5, unit_mask=0.3)
    assert isinstance(source.batching, DecoderBatching)
    formatter = source.batching.formatter
    mask = formatter.vocabulary.id("<mask>")
    asr = [item for item in flat(source.plan(0)) if TASKS[item.task].name == "asr"]
    lengths = [len(source._example(item)) for item in asr]
    plain = mixture(folder, tmp_path / "store")
    full = [len(plain._example(item)) for item in asr]
    dropped = np.mean([a < b for a, b in zip(lengths, full, strict=True)])
    assert 0.2 < dropped < 0.8
    for item in asr:
        example = source._example(item)
        assert not (example.tokens[example.target] == mask).any()
    again = [source._example(item).tokens.tolist() for item in asr]
    assert again == [source._example(item).tokens.tolist() for item in asr]


def test_nothing_fits_the_context(make_shards: MakeShards, tmp_path: Path) -> None:
    tokens, formatter = opened(make_shards(rows(8)), tmp_path / "store")
    with pytest.raises(ConfigError, match="task asr: every example is longer than"):
        mixture_of(tokens, formatter, select(TASKS, ["asr"]), context=4)


class Pairs:
    """Batches of a model with an encoder and a decoder."""

    longest, capacity = 40, None

    def fields(self, task: int) -> tuple[str, ...]:
        return ("units", "text")

    def cost(self, task: int, sizes: Sizes) -> np.ndarray:
        return np.stack([sizes("units"), sizes("text")], axis=1)

    def example(self, task: int, record: Record, generator: np.random.Generator) -> Any:
        return record["units"], record["text"]

    def collate(self, rows: Any) -> list[tuple[int, int]]:
        return [(len(units), len(text)) for ((_, (units, text)),) in rows]


def test_examples_may_cost_a_source_and_a_target(make_shards: MakeShards, tmp_path: Path) -> None:
    table = rows(40)
    table[0]["text"] = "x" * 40
    tokens, _ = opened(make_shards(table), tmp_path / "store")
    task = TASKS[0].task
    config = MixtureConfig(max_tokens=256, mixing="data", window_examples=39)
    source = Mixture(config, store=tokens, tasks=[task], batching=Pairs(), seed=0)
    assert source.counts() == {"asr": 39}  # one is too long
    found: list[tuple[int, int]] = []
    for spec in source.plan(0):
        batch = source.load(spec)
        assert (
            len(batch) * sum(-(-max(column) // 8) * 8 for column in zip(*batch, strict=True)) <= 256
        )
        found += batch
    expected = [(len(row["units"]), len(row["text"])) for row in table[1:]]
    assert sorted(found) == sorted(expected)


def test_padding_is_what_it_says(make_shards: MakeShards, tmp_path: Path) -> None:
    source = mixture(make_shards(rows(40)), tmp_path / "store")
    spec = source.plan(0)[0]
    batch = source.load(spec)
    used = sum(len(source._example(item)) - 1 for row in spec for item in row)
    assert batch.padding == pytest.approx(1 - used / batch.tokens.numel())
    assert torch.equal(source.load(spec).tokens, batch.tokens)
