"""Marks of text that normalizers treat alike: apostrophes, brackets, what is never heard."""

import re
import unicodedata

APOSTROPHES = str.maketrans(
    dict.fromkeys(
        "\u2018\u2019\u201b`\u00b4\u02b9\u02bb\u02bc\u02bd\u02be\u02bf"
        "\u2032\u2035\uff07\uff40\u055a\u05f3\u07f4\u07f5\u1fbd\u1fbf\u1ffd\u1ffe\ua78b\ua78c",
        "'",
    )
)
"""Characters that people write for an apostrophe; before NFKC, which makes spaces of some."""
_SQUARE = re.compile(r"[<\[][^>\]]*[>\]]")
_ROUND = re.compile(r"\(([^)]+?)\)")


def without_brackets(text: str) -> str:
    """Drop what stands in brackets, as Whisper's authors do.

    >>> without_brackets("(laughs) stop[noise]")
    ' stop'
    """
    return _ROUND.sub("", _SQUARE.sub("", text))


def has_sound(word: str) -> bool:
    """Tell whether a word has anything but controls, joiners and unassigned characters.

    >>> has_sound("ok"), has_sound("\u200d")
    (True, False)
    """
    return any(unicodedata.category(character)[0] != "C" for character in word)
