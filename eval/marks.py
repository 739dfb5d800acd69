"""Marks of text that normalizers treat alike: apostrophes, brackets, what is never heard."""

import re
import unicodedata

APOSTROPHES = str.maketrans(
    dict.fromkeys(
        "\u2018\u2019\u201b`\u00b4\u02b9\u02bb\u02bc\u02bd\u02be\u02bf"
        "\u0384\u2032\u2035\uff07\uff40\u055a\u05f3\u07f4\u07f5\u1fbd\u1fbf\u1ffd\u1ffe\ua78b\ua78c\u275b\u275c",
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


def heard(text: str) -> str:
    """Drop zero-width characters, and words of controls and unassigned characters alone.

    >>> heard("soft\u00adly \u200d \ue000 spoken")
    'softly spoken'
    """
    words = "".join(c for c in text if unicodedata.category(c) != "Cf").split()
    return " ".join(w for w in words if any(unicodedata.category(c)[0] != "C" for c in w))
