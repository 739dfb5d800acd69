import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import ConfigError
from unitone.eval.normalizers import NORMALIZERS, Normalizer, is_spaceless, normalizer


@pytest.mark.parametrize("one", NORMALIZERS.values(), ids=lambda one: one.name)
@given(text=st.text(max_size=30))
def test_spaces_are_single_and_twice_is_once(one: Normalizer, text: str) -> None:
    done = one(text)
    assert done == " ".join(done.split())
    if one.name != "whisper":  # brackets that only the first pass uncovers
        assert one(done) == done


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't—really! (STOP)", "i can't really stop"),
        ("rock'n'roll 'quoted' it’s", "rock'n'roll quoted it's"),
        ("ﬁve ｆｕｌｌ", "five full"),
        ("3.5 kg, 20 %", "35 kg 20"),
        ("Größe; ÉTÉ", "größe été"),
        ("नमस्ते दुनिया!", "नमस्ते दुनिया"),
        ("今日は、良い天気。", "今日は良い天気"),
        ("snake_case and/or", "snake case and or"),
        ("zero\u200bwidth", "zerowidth"),
    ],
)
def test_basic(text: str, expected: str) -> None:
    assert normalizer("basic")(text) == expected


@given(st.text(max_size=40))
def test_basic_leaves_no_punctuation_but_inner_apostrophes(text: str) -> None:
    done = normalizer("basic")(text)
    kinds = {unicodedata.category(c)[0] for c in done.replace("'", "")}
    assert kinds <= {"L", "M", "N", "Z"}
    assert all(word.strip("'") == word for word in done.split())


def test_none_changes_no_word() -> None:
    assert normalizer("none")(" A,  b\tC ") == "A, b C"


def test_lower_composes() -> None:
    assert normalizer("lower")("E\u0301TE\u0301!") == "été!"


def test_whisper_is_transformers() -> None:
    normalizers = pytest.importorskip("transformers.models.whisper.english_normalizer")
    theirs = normalizers.BasicTextNormalizer()
    for text in ("Hello, (um) WORLD [noise]!", "l'été — déjà vu", "3.5 % <unk> ok", "Straße"):
        assert normalizer("whisper")(text) == theirs(text).strip()


def test_an_unknown_name_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no text normalizer 'english'; there are none, lower"):
        normalizer("english")


def test_signatures_have_name_and_version() -> None:
    assert {one.signature for one in NORMALIZERS.values()} >= {"none.1", "basic.1"}
    assert all(name == one.name for name, one in NORMALIZERS.items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("สวัสดีครับ", True), ("你好吗", True), ("안녕 세상", False), ("two dogs", False), ("", False)],
)
def test_spaceless_scripts(text: str, expected: bool) -> None:
    assert is_spaceless(text) is expected
