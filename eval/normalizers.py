"""Named ways to make two texts comparable before their words are counted.

A score is only comparable with one made by the same normalizer, so each has a version that goes
into the score's signature and rises with every change of what it returns. Where the language is
known it says how case is lowered: Turkish I is ı.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from unitone.errors import ConfigError
from unitone.eval.english.normalizer import whisper_en
from unitone.eval.languages import iso_639_1
from unitone.eval.marks import APOSTROPHES, heard, without_brackets

NormalizerName = Literal["none", "lower", "basic", "arabic", "whisper", "whisper-en"]

_SPACELESS_CLASS = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana, Han: scripts without spaces between words."""
_SPACELESS = re.compile(_SPACELESS_CLASS)
_IDLE_SPACE = re.compile(f"(?<={_SPACELESS_CLASS}) | (?={_SPACELESS_CLASS})")
_IDLE_MARK = re.compile(f"(?<={_SPACELESS_CLASS})\n+(?={_SPACELESS_CLASS})")
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u00a9\u00ae\u2120\u2122]|[\u2139\u24c2\u3297\u3299]\ufe0f"
)
"""Before compatibility forms are folded, which would make letters of some."""
_SOUNDLESS = re.compile(
    "[\u034f\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Letters and marks that are never heard: variation selectors, fillers, tatweel."""
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_INITIALS = re.compile(r"(?<![\w.'])(?:[^\W\d_]\.)+[^\W\d_](?!\w)\.?")
_INSIDE_WORDS = re.compile(
    '(?<=l)\u00b7(?=l)|(?<=[\u05d0-\u05ea])["\u05f4\u201d](?=[\u05d0-\u05ea])'
)
"""Catalan's middle dot, the quotation mark in Hebrew abbreviations."""
_OUTER_APOSTROPHE = re.compile(r"(?<![^\s'])'|'(?![^\s'])")
_DOTTED = {"tr", "az", "crh", "gag"}
"""Languages in which İ is the capital of i, and I that of ı."""
_TASHKEEL = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]")
_ARABIC = str.maketrans("أإآٱىةکی", "ااااي" + "هكي")
_ROUNDS = 20
"""Two do, as a rule; none has been seen to need more than four."""


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    name: NormalizerName
    version: int
    apply: Callable[[str, str | None], str]

    def __call__(self, text: str, language: str | None = None) -> str:
        """Return ``text`` normalized; doing it twice changes nothing.

        ``language``: its ISO 639 code, where it is known.
        """
        for _ in range(_ROUNDS):  # what is dropped brings together what composes or is a number
            before, text = text, self.apply(text, language)
            if text == before:
                break
        return text

    @property
    def signature(self) -> str:
        """Name and version, as scores record it."""
        return f"{self.name}.{self.version}"


def normalizer(name: str) -> Normalizer:
    """Return the normalizer called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in NORMALIZERS:
        known = ", ".join(get_args(NormalizerName))
        raise ConfigError(f"no text normalizer {name!r}; there are {known}")
    return NORMALIZERS[name]


def is_spaceless(text: str) -> bool:
    """Tell whether most letters are of a script without spaces, so that words can't be counted.

    >>> is_spaceless("今日は良い天気"), is_spaceless("zwei Hunde")
    (True, False)
    """
    letters = sum(character.isalpha() for character in text)
    return 2 * len(_SPACELESS.findall(text)) > letters


def without_idle_spaces(text: str) -> str:
    """Drop the spaces beside a character of a script without spaces.

    >>> without_idle_spaces("我 爱 new york 的 天气")
    '我爱new york的天气'
    """
    return _IDLE_SPACE.sub("", text)


def none(text: str, language: str | None = None) -> str:
    """Change nothing but spaces: one between words, none around them.

    >>> none(" Two  dogs! ")
    'Two dogs!'
    """
    return " ".join(text.split())


def lower(text: str, language: str | None = None) -> str:
    """Compose (NFC) and lower the case.

    >>> lower("Two DOGS!"), lower("ISPARTA, İzmir", "tr")
    ('two dogs!', 'ısparta, izmir')
    """
    lowered = _lowered(unicodedata.normalize("NFC", text), language)
    return none(unicodedata.normalize("NFC", lowered))


def _lowered(text: str, language: str | None) -> str:
    """Lower the case; letters that differ only in what their capital is become one."""
    if language is not None and iso_639_1(language) in _DOTTED:
        text = text.replace("I\u0307", "i").replace("İ", "i").replace("I", "ı")
    # elsewhere İ lowers to i and a dot above; ß has no capital in most texts but SS, ς none but Σ
    return text.lower().replace("i\u0307", "i").replace("ß", "ss").replace("ς", "σ")


def basic(text: str, language: str | None = None) -> str:
    """Lower the case and drop what has no sound; letters and their accents stay.

    Compatibility forms are folded (NFKC: full width, ligatures). An apostrophe inside a word stays,
    whichever character it is; all other punctuation and symbols part words, but for the dots of
    initials and the commas of thousands. Of what is never heard, nothing stays: emoji with
    their selectors and joiners, soft hyphens, zero-width spaces.

    >>> basic("Well-known: don’t “STOP”, Zoë… 👍️ at 12:30 p.m.")
    "well known don't stop zoë at 12 30 pm"
    """
    bare = _parted(_EMOJI.sub(" ", text).translate(APOSTROPHES))
    folded = _lowered(unicodedata.normalize("NFKC", bare), language)
    folded = unicodedata.normalize("NFKC", _SOUNDLESS.sub("", folded))
    folded = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), folded)
    folded = _INITIALS.sub(lambda found: found[0].replace(".", ""), folded)
    return none(_OUTER_APOSTROPHE.sub(" ", _letters(_INSIDE_WORDS.sub("", folded))))


def _parted(text: str) -> str:
    """Part fractions, exponents and the like from digits beside them: 1½ isn't 11/2."""
    kinds = [unicodedata.category(character) for character in text]
    return "".join(
        f" {character}" if before[:1] == kind[:1] == "N" and "No" in (before, kind) else character
        for character, before, kind in zip(text, ["", *kinds], kinds, strict=False)
    )


def _letters(text: str) -> str:
    """Keep letters, their marks, numbers, apostrophes; the rest becomes spaces.

    Between characters of scripts without spaces, punctuation becomes nothing.
    """
    kept: list[str] = []
    for character in text:
        kind = unicodedata.category(character)
        if kind in ("Cf", "Me") or (kind[0] == "M" and (not kept or kept[-1] in " \n'")):
            continue  # a mark needs what it stands on
        mark = "\n" if kind[0] in "PS" and kind not in ("Pd", "Pc") else " "
        kept.append(character if character == "'" or kind[0] in "LMN" else mark)
    return _IDLE_MARK.sub("", "".join(kept))


def arabic(text: str, language: str | None = None) -> str:
    """Normalize as ``basic``, and fold how Arabic may be spelled.

    Vowel signs (tashkeel) go, the forms of alef become one, as do alef maqsura and ya, ta marbuta
    and ha; digits are European ones.

    >>> arabic("أَهْلًا، ٣ مدرسة") == arabic("اهلا 3 مدرسه")
    True
    """
    bare = _TASHKEEL.sub("", basic(text, language)).translate(_ARABIC)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in bare)


def whisper(text: str, language: str | None = None) -> str:
    """Normalize as Whisper's authors do outside English (Radford et al. 2022, appendix C).

    What stands in brackets goes; marks, symbols and punctuation become spaces, apostrophes
    included; combining marks too, which harms Indic scripts and Thai: use it to compare with
    published numbers. Unlike theirs it takes all apostrophes alike, and drops zero-width
    characters and words of controls alone.

    >>> whisper("(laughs) Don't [noise] STOP!")
    'don t stop'
    """
    bare = without_brackets(text.translate(APOSTROPHES).lower())
    folded = unicodedata.normalize("NFKC", bare).lower()
    return heard("".join(" " if unicodedata.category(c)[0] in "MSP" else c for c in folded))


NORMALIZERS: dict[str, Normalizer] = {
    "none": Normalizer(name="none", version=1, apply=none),
    "lower": Normalizer(name="lower", version=2, apply=lower),
    "basic": Normalizer(name="basic", version=2, apply=basic),
    "arabic": Normalizer(name="arabic", version=1, apply=arabic),
    "whisper": Normalizer(name="whisper", version=2, apply=whisper),
    "whisper-en": Normalizer(name="whisper-en", version=1, apply=whisper_en),
}
