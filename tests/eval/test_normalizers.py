import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import ConfigError
from unitone.eval.normalizers import NORMALIZERS, Normalizer, is_spaceless, normalizer

HARD = st.sampled_from(
    [*"aIiıİßẞſςΣǰ̇́̈'’´`(<[)]>.,:-+%$€¢ 12½²①ﷲـًأ한\u1100\u1161\u200b\u200d\ufe0f👍™ℹ"]
)
ENGLISH = """
one two twenty second third hundred thousand million and a half point oh double minus dollars cents
percent 1 2.5 $3 ¢50 5% -4 .7 ones twenties 's mr analyse travelled favourite
"""
NUMBERS = st.sampled_from(ENGLISH.split())
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(HARD, max_size=12),
    st.lists(NUMBERS, max_size=8).map(" ".join),
)


@pytest.mark.parametrize("language", [None, "tr"])
@pytest.mark.parametrize("one", NORMALIZERS.values(), ids=lambda one: one.name)
@given(text=TEXTS)
def test_spaces_are_single_and_twice_is_once(
    one: Normalizer, text: str, language: str | None
) -> None:
    done = one(text, language)
    assert done == " ".join(done.split())
    assert one(done, language) == done


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can't—really! (STOP)", "i can't really stop"),
        ("rock'n'roll 'quoted' it’s", "rock'n'roll quoted it's"),
        ("ﬁve ｆｕｌｌ", "five full"),
        ("3.5 kg, 20 %", "3 5 kg 20"),
        ("Größe; ÉTÉ", "grösse été"),
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
    assert {one.signature for one in NORMALIZERS.values()} >= {"none.1", "basic.2"}
    assert all(name == one.name for name, one in NORMALIZERS.items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("สวัสดีครับ", True), ("你好吗", True), ("안녕 세상", False), ("two dogs", False), ("", False)],
)
def test_spaceless_scripts(text: str, expected: bool) -> None:
    assert is_spaceless(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "ok 👍️",
        "ok 👨\u200d👩\u200d👧",
        "ok 👍🏽",
        "🇩🇪 ok",
        "ok\ufe0f \ufe0f",
        "o\u00adk",
        "ok ♪ ™️ ℹ️ ®",
        "\u0301 ok",
    ],
)
@pytest.mark.parametrize("name", ["basic", "arabic", "whisper", "whisper-en"])
def test_what_has_no_sound_is_no_word(name: str, text: str) -> None:
    words = normalizer(name)(text).replace("tm", "").replace("i", "").split()
    assert words[:1] == ["ok"]
    # Whisper's own normalizer takes symbols for spaces and leaves letters in signs: no more words
    assert not [word for word in words[1:] if not word.isascii() or not word.isalnum()]
    assert len(words) == 1 or not name.startswith(("basic", "arabic"))


@pytest.mark.parametrize(
    "text", ["12:30", "12³0", "1230²", "1.230", "12-30", "1/230", "123½", "12·30", "1'230"]
)
def test_punctuation_between_digits_parts_numbers(text: str) -> None:
    assert normalizer("basic")(text) != normalizer("basic")("1230")


@pytest.mark.parametrize(
    ("text", "other"), [("½", "12"), ("1½", "112"), ("10⁶", "106"), ("3¼", "314")]
)
@pytest.mark.parametrize("name", ["basic", "arabic"])
def test_fractions_and_exponents_are_no_digits_of_the_number_before(
    name: str, text: str, other: str
) -> None:
    assert normalizer(name)(text) != normalizer(name)(other)


@pytest.mark.parametrize("mark", [",", ".", ";", ":", "!", "?", "…", "=", "+", "&", "·", '"', ")("])
def test_punctuation_between_letters_parts_words(mark: str) -> None:
    assert normalizer("basic")(f"hello{mark}world") == "hello world"


def test_initials_and_thousands_stay_together() -> None:
    assert normalizer("basic")("The U.S. owes 1,000,000 at 5 p.m.") == "the us owes 1000000 at 5 pm"


@pytest.mark.parametrize("apostrophe", ["’", "‘", "´", "`", "ʼ", "＇", "‛", "′", "ʻ", "❜", "΄"])
@pytest.mark.parametrize("name", ["basic", "whisper", "whisper-en"])
def test_all_apostrophes_are_alike(name: str, apostrophe: str) -> None:
    assert normalizer(name)(f"don{apostrophe}t") == normalizer(name)("don't")


@pytest.mark.parametrize("name", ["lower", "basic"])
def test_case_is_lowered_by_language(name: str) -> None:
    one = normalizer(name)
    for language in ("tr", "TUR", "az-Latn"):
        assert one("ISPARTA DİYARBAKIR", language) == "ısparta diyarbakır"
    assert one("ISPARTA", "en") == one("isparta") == "isparta"
    assert one("İstanbul") == one("I\u0307stanbul", "tr") == "istanbul"
    assert one("STRASSE") == one("Straße") == one("STRAẞE")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("مُحَمَّدٌ", "محمد"),
        ("أحمد إلى آخر", "احمد الى اخر"),
        ("العـــربية", "العربيه"),
        ("على", "علي"),
        ("٢٠٢٤", "2024"),
        ("ما هذا؟", "ما هذا"),
    ],
)
def test_arabic_folds_how_a_word_may_be_spelled(one: str, other: str) -> None:
    assert normalizer("arabic")(one) == normalizer("arabic")(other)
    assert normalizer("basic")("أحمد") == "أحمد"


def test_a_letter_is_the_same_wherever_it_stands_in_a_word() -> None:
    for name in ("lower", "basic"):
        apply = NORMALIZERS[name].apply
        assert apply("ΣΑΣ.ΜΑΣ", "el") == apply("σας.μας", "el")
        assert apply("ΟΔΟΣ", "el") == apply("οδος", "el") == apply("οδοσ", "el")
