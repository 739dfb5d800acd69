import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import CheckpointError, ConfigError
from unitone.lm.data.vocabulary import REQUIRED_SPECIALS, Vocabulary

PASSPORT = "ab" * 32
LABELS = st.lists(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=4), unique=True, max_size=4
)


ARGUMENTS = st.fixed_dictionaries(
    {
        "text": st.integers(0, 9),
        "units": st.integers(0, 9),
        "codes": st.lists(st.integers(1, 5), max_size=3),
        "tasks": LABELS,
        "languages": LABELS,
        "genders": LABELS,
        "speakers": LABELS,
        "special": LABELS.map(lambda more: tuple(dict.fromkeys((*REQUIRED_SPECIALS, *more)))),
        "passport": st.none() | st.just(PASSPORT),
    }
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.build(
        text=256,
        units=100,
        codes=(16,) * 4,
        tasks=("asr", "tts"),
        languages=("de", "en"),
        genders=("f", "m"),
        speakers=("p225",),
        passport=PASSPORT,
    )


@given(arguments=ARGUMENTS)
def test_every_token_belongs_to_exactly_one_block(arguments: dict[str, Any]) -> None:
    vocabulary = Vocabulary.build(**arguments)
    owners = [[b.name for b in vocabulary if token in b] for token in range(len(vocabulary))]

    assert all(len(names) == 1 for names in owners)
    assert [names[0] for names in owners] == [
        vocabulary.block_of(token) for token in range(len(vocabulary))
    ]
    assert all(a.end == b.start for a, b in itertools.pairwise(vocabulary))


@given(arguments=ARGUMENTS)
def test_decode_undoes_encode_in_every_block(arguments: dict[str, Any]) -> None:
    vocabulary = Vocabulary.build(**arguments)
    for block in vocabulary:
        tokens = block.encode(torch.arange(block.size))
        assert tokens.tolist() == list(range(block.start, block.end))
        assert block.decode(tokens).tolist() == list(range(block.size))


@given(arguments=ARGUMENTS)
def test_the_name_of_a_token_leads_back_to_it(arguments: dict[str, Any]) -> None:
    vocabulary = Vocabulary.build(**arguments)
    names = [vocabulary.describe(token) for token in range(len(vocabulary))]

    assert len(set(names)) == len(names)
    for token, name in enumerate(names):
        if name.startswith("<"):
            assert vocabulary.id(name) == token
        else:
            block, number = name.rsplit(":", 1)
            assert vocabulary.block(block).encode(int(number)) == token


@given(arguments=ARGUMENTS)
def test_json_gives_back_the_same_vocabulary(arguments: dict[str, Any]) -> None:
    vocabulary = Vocabulary.build(**arguments)
    again = Vocabulary.from_json(vocabulary.to_json())

    assert again == vocabulary
    assert again.to_json() == vocabulary.to_json()
    assert (again.passport, len(again)) == (vocabulary.passport, len(vocabulary))


def test_the_layout_is_the_documented_one(vocabulary: Vocabulary) -> None:
    assert [block.name for block in vocabulary] == [
        "special", "task", "language", "gender", "speaker", "text", "unit",
        "code/0", "code/1", "code/2", "code/3",
    ]  # fmt: skip
    assert (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id) == (0, 1, 2)
    assert len(vocabulary) == 9 + 2 + 2 + 2 + 1 + 256 + 100 + 4 * 16
    assert vocabulary.describe(vocabulary.id("<language:en>")) == "<language:en>"
    assert vocabulary.describe(vocabulary.block("unit").encode(7)) == "unit:7"


def test_encode_keeps_the_form_it_is_given(vocabulary: Vocabulary) -> None:
    block = vocabulary.block("unit")
    start = block.start

    assert block.encode([0, 99]) == [start, start + 99]
    assert block.encode(3) == start + 3
    array = block.encode(np.array([[0], [1]], np.int32))
    assert array.dtype == np.int32
    assert array.tolist() == [[start], [start + 1]]
    assert block.encode(torch.tensor([[5]])).tolist() == [[start + 5]]
    assert block.encode([]) == []
    assert block.decode(np.zeros(0, np.int64)).size == 0
    assert block.encode(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0)


def test_values_out_of_range_name_block_and_value(vocabulary: Vocabulary) -> None:
    block = vocabulary.block("unit")
    with pytest.raises(ValueError, match=r"id 100 is not in block 'unit', which has 0\.\.99"):
        block.encode([0, 100])
    with pytest.raises(ValueError, match="id -1 is not in block 'unit'"):
        block.encode(torch.tensor([-1, 2]))
    with pytest.raises(
        ValueError, match=rf"token 0 is not in block 'unit', which has {block.start}"
    ):
        block.decode(np.array([0]))
    with pytest.raises(ValueError, match="an empty range"):
        Vocabulary.build(units=4).block("text").encode(0)
    with pytest.raises(ValueError, match="is not in the vocabulary, 0"):
        vocabulary.block_of(len(vocabulary))


def test_allowed_marks_blocks_and_single_tokens(vocabulary: Vocabulary) -> None:
    mask = vocabulary.allowed("unit", "<eos>")

    assert mask.sum() == 101
    assert mask[vocabulary.eos_id]
    assert vocabulary.block_of(int(mask.nonzero()[-1])) == "unit"


def test_unknown_names_say_what_there_is(vocabulary: Vocabulary) -> None:
    with pytest.raises(ConfigError, match=r"no token '<task:st>'; .* <task:asr>, <task:tts>"):
        vocabulary.id("<task:st>")
    with pytest.raises(ConfigError, match=r"no token '<end>'; block 'special' has <pad>"):
        vocabulary.id("<end>")
    with pytest.raises(ConfigError, match=r"no block 'units'; there are special, task"):
        vocabulary.block("units")


def test_another_passport_is_refused(vocabulary: Vocabulary) -> None:
    vocabulary.require_passport(PASSPORT, of="shard 3")
    with pytest.raises(ConfigError, match="shard 3 was made with tokenizer cdcdcdcdcdcd, this"):
        vocabulary.require_passport("cd" * 32, of="shard 3")
    with pytest.raises(ConfigError, match="this vocabulary with none"):
        Vocabulary.build(units=4).require_passport(PASSPORT, of="shard 3")


def test_the_hash_depends_on_layout_and_passport(vocabulary: Vocabulary) -> None:
    makes = [
        Vocabulary.build(units=4),
        Vocabulary.build(units=5),
        Vocabulary.build(text=4),
        Vocabulary.build(units=4, passport=PASSPORT),
        Vocabulary.build(units=4, tasks=("asr",)),
    ]
    assert len({made.hash for made in makes}) == len(makes)
    assert Vocabulary.build(units=4) == makes[0] != makes[1]


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs the special token <eos>"):
        Vocabulary.build(special=("pad", "bos", "sep"))
    with pytest.raises(ConfigError, match="block 'language' names de more than once"):
        Vocabulary.build(languages=("de", "en", "de"))
    with pytest.raises(ConfigError, match="block 'text' must be 0 or more, got -1"):
        Vocabulary.build(text=-1)
    with pytest.raises(ConfigError, match="'a>b' cannot name a token"):
        Vocabulary.build(speakers=("a>b",))
    with pytest.raises(ConfigError, match="'task:asr' cannot name a token in block 'special'"):
        Vocabulary.build(special=(*REQUIRED_SPECIALS, "task:asr"))


def test_save_and_load(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    assert Vocabulary.load(tmp_path).hash == vocabulary.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(extra=1), "unknown key 'extra' in the vocabulary"),
        (lambda value: value.pop("size"), "the vocabulary has no 'size'"),
        (lambda value: value.update(format=2), "format 2; this version reads 1"),
        (lambda value: value["blocks"][0].update(offset=1), "unknown key 'offset' in the block"),
        (lambda value: value["blocks"][5].update(start=9), "overlap, leave gaps or miscount"),
        (lambda value: value["blocks"][0].update(size=3), "overlap, leave gaps or miscount"),
        (lambda value: value["blocks"].pop(0), "needs the special token <pad>"),
        (lambda value: value["blocks"].append(value["blocks"][6]), "overlap, leave gaps"),
        (lambda value: value["blocks"][5].update(size=None), "is not a vocabulary"),
        (lambda value: value.update(blocks=7), "is not a vocabulary"),
    ],
)
def test_a_changed_file_is_refused(vocabulary: Vocabulary, change: Any, message: str) -> None:
    value = copy.deepcopy(vocabulary.to_json())
    change(value)
    with pytest.raises(CheckpointError, match=message):
        Vocabulary.from_json(value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vocabulary\.json: missing"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must be a JSON object, got list"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"vocabulary\.json: "):
        Vocabulary.load(tmp_path)
