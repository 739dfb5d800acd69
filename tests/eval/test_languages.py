import pytest

from unitone.eval.languages import _SHORT, iso_639_1


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("cmn", "zh"),
        ("deu", "de"),
        ("ger", "de"),
        ("fre", "fr"),
        ("arb", "ar"),
        ("pes", "fa"),
        ("swh", "sw"),
        ("jpn_Jpan", "ja"),
        ("pt-BR", "pt"),
        ("TUR", "tr"),
        ("yue", "yue"),
        ("xx", "xx"),
    ],
)
def test_codes_of_three_letters_are_those_of_two(code: str, short: str) -> None:
    assert iso_639_1(code) == short


def test_no_short_code_is_mapped_again() -> None:
    assert all(iso_639_1(short) == short for short in _SHORT.values())
