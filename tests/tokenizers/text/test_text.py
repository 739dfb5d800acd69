import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.text.text import (
    ByteText,
    CharacterText,
    SentencePieceText,
    TextKind,
    TextTokenizer,
    load_text,
    train_text,
)

WORDS = re.findall(
    r"\w+", "the quick brown fox jumps over a lazy dog while seven wizards sleep at Köln"
)
LINES = [" ".join(np.random.default_rng(seed).choice(WORDS, size=9)) for seed in range(100)]
SIZE = 300
ODD = st.text(alphabet=st.sampled_from(" \u2581\U0010fffdse\t\n\r\0a\u00e9\u0301日\u200b ７ﬁ"))


@pytest.fixture(scope="module")
def subwords() -> SentencePieceText:
    return SentencePieceText.train(LINES, size=SIZE)


@given(text=st.text() | ODD)
@example(text="  two  spaces  ")
@example(text="\u2581 is not a space, \U0010fffds is not \u2581")
@example(text="ﬁ ７ é e\u0301")  # NFKC would change all of these
def test_bytes_and_subwords_keep_any_text(subwords: SentencePieceText, text: str) -> None:
    for tokenizer in (ByteText(), subwords):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= number < tokenizer.size for number in ids)


def test_subwords_never_need_the_unknown_piece(subwords: SentencePieceText) -> None:
    assert 0 not in subwords.encode("日本語 ☃ \0")


def test_subwords_are_shorter_than_bytes(subwords: SentencePieceText) -> None:
    assert len(subwords.encode(LINES[0])) < len(LINES[0]) / 2


def test_training_subwords_is_repeatable(subwords: SentencePieceText) -> None:
    assert SentencePieceText.train(iter(LINES), size=SIZE).hash == subwords.hash
    assert subwords.size == SIZE


@given(ids=st.lists(st.integers(0, 255)))
def test_any_ids_decode_to_some_text(subwords: SentencePieceText, ids: list[int]) -> None:
    for tokenizer in (ByteText(), subwords):
        assert isinstance(tokenizer.decode(ids), str)


def test_characters_get_ids_in_code_point_order_behind_unk() -> None:
    tokenizer = CharacterText.train(["ba b", "cé"])

    assert tokenizer.size == 6
    assert tokenizer.encode(" abcé") == [1, 2, 3, 4, 5]
    assert tokenizer.decode([3, 2, 0]) == "ba\ufffd"


@given(text=st.text(alphabet="ab c\u0301日"))
def test_characters_keep_the_text_they_were_trained_on(text: str) -> None:
    tokenizer = CharacterText.train(["ab c\u0301日"])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_unknown_character_is_named_or_becomes_unk_on_request() -> None:
    with pytest.raises(ConfigError, match=r"character 'z' \(U\+007A\) is not among the 2"):
        CharacterText.train(["ab"]).encode("abz")
    assert CharacterText.train(["ab"], unknown="unk").encode("abz") == [1, 2, 0]


@pytest.mark.parametrize("kind", ["bytes", "characters", "sentencepiece"])
def test_load_gives_back_what_was_saved(kind: TextKind, tmp_path: Path) -> None:
    made = train_text(kind, LINES, size=SIZE if kind == "sentencepiece" else None)
    made.save(tmp_path)
    loaded: TextTokenizer = load_text(kind, tmp_path)

    assert loaded.kind == kind
    assert (loaded.hash, loaded.size) == (made.hash, made.size)
    assert loaded.encode(LINES[3]) == made.encode(LINES[3])
    assert (tmp_path / "text.model").exists() == (kind != "bytes")


def test_the_character_file_is_a_readable_list(tmp_path: Path) -> None:
    CharacterText.train(["ab"]).save(tmp_path)
    assert json.loads((tmp_path / "text.model").read_text()) == ["<unk>", "a", "b"]


def test_kind_and_file_must_agree(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing, though the text kind is characters"):
        load_text("characters", tmp_path)
    CharacterText.train(["ab"]).save(tmp_path)
    with pytest.raises(CheckpointError, match="not a sentencepiece text model"):
        load_text("sentencepiece", tmp_path)
    SentencePieceText.train(LINES, size=SIZE).save(tmp_path)
    with pytest.raises(CheckpointError, match="not a characters text model"):
        load_text("characters", tmp_path)
    (tmp_path / "text.model").write_text('["a", "b"]')
    with pytest.raises(CheckpointError, match="starts with <unk>"):
        load_text("characters", tmp_path)
    with pytest.raises(ConfigError, match="got 'words'"):
        load_text("words", tmp_path)


def test_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs its number of subwords"):
        train_text("sentencepiece", LINES)
    with pytest.raises(ConfigError, match="size of a bytes text tokenizer cannot be chosen"):
        train_text("bytes", LINES, size=300)
    with pytest.raises(ConfigError, match="cannot learn 100 text subwords"):
        SentencePieceText.train(LINES, size=100)
    with pytest.raises(ConfigError, match=r"holds only \d+ subwords, 9000 were asked for"):
        SentencePieceText.train(LINES, size=9000)
    with pytest.raises(ConfigError, match="every line is empty"):
        CharacterText.train([""])
    with pytest.raises(ConfigError, match="cannot learn 300 text subwords"):
        SentencePieceText.train([], size=300)


def test_values_out_of_range_are_named(subwords: SentencePieceText) -> None:
    with pytest.raises(ValueError, match=r"text byte 256 is not in 0\.\.255"):
        ByteText().decode([256])
    with pytest.raises(ValueError, match=r"text piece -1 is not in 0\.\.299"):
        subwords.decode([3, -1])
    with pytest.raises(ValueError, match=r"lone surrogate U\+D800 at 1"):
        subwords.encode("a\ud800")
