"""Named ways to make two texts comparable before their words are counted.

A score is only comparable with one made by the same normalizer, so each has a version that goes
into the score's signature and rises with every change of what it returns.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from unitone.errors import ConfigError

NormalizerName = Literal["none", "lower", "basic", "whisper"]

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'", "`": "'"})
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana, Han: scripts without spaces between words."""


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    name: NormalizerName
    version: int
    apply: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Return ``text`` normalized; doing it twice changes nothing."""
        return self.apply(text)

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


def none(text: str) -> str:
    """Change nothing but spaces: one between words, none around them.

    >>> none(" Two  dogs! ")
    'Two dogs!'
    """
    return " ".join(text.split())


def lower(text: str) -> str:
    """Compose (NFC) and lower the case.

    >>> lower("Two DOGS!")
    'two dogs!'
    """
    return none(unicodedata.normalize("NFC", text).lower())


def basic(text: str) -> str:
    """Lower the case and drop punctuation and symbols, letters and their accents stay.

    Compatibility forms are folded (NFKC: full width, ligatures). An apostrophe inside a word stays,
    whichever character it is; a hyphen or a slash parts words; other marks vanish.

    >>> basic("Well-known: don’t “STOP”, Zoë…")
    "well known don't stop zoë"
    """
    folded = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).lower()
    kept = "".join(map(_basic_character, unicodedata.normalize("NFKC", folded)))
    return none(re.sub(r"(?<!\w)'|'(?!\w)", "", kept))


def _basic_character(character: str) -> str:
    kind = unicodedata.category(character)
    if character == "'" or kind[0] in "LMN":
        return character
    if kind in ("Pd", "Pc", "Cf") or character in "/\\|":
        return "" if kind == "Cf" else " "
    return "" if kind[0] in "PS" else " "


def whisper(text: str) -> str:
    """Normalize as Whisper's authors do outside English (Radford et al. 2022, appendix C).

    What stands in brackets goes; marks, symbols and punctuation become spaces, apostrophes
    included; combining marks too, which harms Indic scripts and Thai: use it to compare with
    published numbers.

    >>> whisper("(laughs) Don't [noise] STOP!")
    'don t stop'
    """
    bare = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    bare = re.sub(r"\(([^)]+?)\)", "", bare)
    folded = unicodedata.normalize("NFKC", bare).lower()
    return none("".join(" " if unicodedata.category(c)[0] in "MSP" else c for c in folded))


NORMALIZERS: dict[str, Normalizer] = {
    "none": Normalizer(name="none", version=1, apply=none),
    "lower": Normalizer(name="lower", version=1, apply=lower),
    "basic": Normalizer(name="basic", version=1, apply=basic),
    "whisper": Normalizer(name="whisper", version=1, apply=whisper),
}
