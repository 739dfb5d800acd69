import pytest

from unitone.eval.english.normalizer import whisper_en
from unitone.eval.normalizers import normalizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nineteen hundred", "1900"),
        ("nineteen sixty nine", "1969"),
        ("the nineteen sixties", "the 1960s"),
        ("twenty twenty one", "2021"),
        ("one oh one", "101"),
        ("double oh seven", "007"),
        ("a hundred and five", "a 105"),
        ("two thousand and six", "2006"),
        ("five thousand three hundred and twenty one", "5321"),
        ("ten thousand dollars", "$10000"),
        ("$20 million", "$20000000"),
        ("twenty million dollars", "$20000000"),
        ("two dollars and fifty cents", "$2.50"),
        ("fifty percent, 50 per cent, 50 %", "50% 50% 50%"),
        ("three point one four", "3.14"),
        ("two and a half", "2.5"),
        ("minus five degrees", "-5 degrees"),
        ("the twenty first, 1st and third", "the 21st 1st and 3rd"),
        ("1,234,567 people", "1234567 people"),
        ("one of the ones", "one of the ones"),
        ("oh my", "oh my"),
        ("bread and butter", "bread and butter"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert whisper_en(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I won't, can't, didn’t", "i will not can not did not"),
        ("she's gone; he'd been; it's", "she has gone he had been it is"),
        ("Mr. and Mrs. Smith, Dr. Who", "mister and missus smith doctor who"),
        ("um, I gotta uh go", "i got to go"),
        ("[noise] (laughs) <unk> yes", "yes"),
        ("café Ærø naïve", "cafe aero naive"),
        ("fish & chips @ noon!", "fish chips noon"),
    ],
)
def test_contractions_titles_and_marks(text: str, expected: str) -> None:
    assert whisper_en(text) == expected


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("the colours of honourable neighbours", "the colors of honorable neighbors"),
        ("organised, realising, civilisation", "organized realizing civilization"),
        ("travelled modelling jeweller", "traveled modeling jeweler"),
        ("theatre centres centimetre", "theater centers centimeter"),
        ("defence licence analysed catalogue", "defense license analyzed catalog"),
        ("grey anaemia archaeology manoeuvred", "gray anemia archeology maneuvered"),
        ("fulfil skilful programme", "fulfill skillful program"),
        ("promise exercise likewise surprised", "promise exercise likewise surprised"),
        ("four hours should our tour controlled", "4 hours should our tour controlled"),
    ],
)
def test_spellings(british: str, american: str) -> None:
    assert whisper_en(british) == american
    assert whisper_en(american) == american


def test_most_sentences_are_as_in_transformers() -> None:
    normalizers = pytest.importorskip("transformers.models.whisper.english_normalizer")
    theirs = normalizers.EnglishTextNormalizer({})
    for text in (
        "In nineteen hundred and five, Mr. Smith's dogs weren't there.",
        "It cost twenty five thousand dollars, or $30.50!",
        "The second of June eighteen sixty one",
        "I'm sure they've seen 1,500 people at 10:30 p.m.",
        "one hundred and twenty three point four percent",
        "He lived at two two one B, (laughs) um, Baker Street.",
        "twenty thirds of the thirty-first",
        "three hundred million and sixty",
    ):
        assert normalizer("whisper-en")(text) == theirs(text).strip()
