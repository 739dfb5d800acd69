"""The English normalizer that goes with Whisper (Radford et al. 2022, appendix C), written anew.

Same steps, our own grammar of numbers and rules of spelling, so single words may come out
otherwise; both texts of a comparison go through it. Beyond the original: all apostrophes are alike,
a sign stays at its number, and a second application changes nothing.
"""

import re
import unicodedata

from unitone.eval.english.numbers import in_digits
from unitone.eval.english.spelling import american
from unitone.eval.marks import APOSTROPHES, heard, without_brackets

_FILLERS = re.compile(r"\b(?:hmm|mm|mhm|mmm|uh|um)\b")
_WORDS = {
    "won't": "will not",
    "can't": "can not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "wanna": "want to",
    "gotta": "got to",
    "gonna": "going to",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "ma'am": "madam",
    "mr": "mister",
    "mrs": "missus",
    "st": "saint",
    "dr": "doctor",
    "prof": "professor",
    "capt": "captain",
    "gov": "governor",
    "ald": "alderman",
    "gen": "general",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "rev": "reverend",
    "hon": "honorable",
    "asst": "assistant",
    "assoc": "associate",
    "lt": "lieutenant",
    "col": "colonel",
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
}
_ENDINGS = {"n't": "not", "'re": "are", "'s": "is", "'d": "would", "'ll": "will", "'t": "not"}
_ENDINGS |= {"'ve": "have", "'m": "am"}
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b")
_PERFECT = re.compile(r"'(d|s) (?=been\b|gone\b|done\b|got\b)")
_ENDING = re.compile(rf"({'|'.join(_ENDINGS)})\b")
_SIGNED = re.compile(r"(?<!\S)[+-](?=[$€£]?\.?\d)")
_CURRENCY_AFTER = re.compile(r"(?<!\S)(\d[\d.]*) ?([$€£¢])(?!\S)")
_LETTERS = str.maketrans(
    {"œ": "oe", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ð": "d", "þ": "th", "ł": "l"}
)


def whisper_en(text: str, language: str | None = None) -> str:
    """Normalize English as Whisper's authors do.

    Brackets and fillers go, contractions and titles are spelled out, numbers become digits,
    currencies and per cent signs, British spellings American.

    >>> whisper_en("Um, Mr. Grey doesn’t owe nineteen hundred dollars (yet).")
    'mister gray does not owe $1900'
    """
    bare = _FILLERS.sub("", without_brackets(text.translate(APOSTROPHES).lower()))
    bare = re.sub(r"\s+'", "'", bare)
    bare = _WORD.sub(lambda found: _WORDS[found[0]], bare)
    bare = _PERFECT.sub(lambda found: " had " if found[1] == "d" else " has ", bare)
    bare = _ENDING.sub(lambda found: f" {_ENDINGS[found[1]]}", bare)
    bare = re.sub(r"(?<=\d),(?=\d)", "", bare)
    bare = re.sub(r"\.(?!\d)", " ", bare)
    words = american(in_digits(_without_symbols(bare).split()))
    bare = re.sub(r"[.$¢€£+-](?![\d.$¢€£])|(?<!\d)%", " ", " ".join(words))
    return heard(bare)


def _without_symbols(text: str) -> str:
    """Drop accents, and symbols but those of numbers."""
    folded = unicodedata.normalize("NFKD", text.translate(_LETTERS)).lower()
    signs = {found.start() for found in _SIGNED.finditer(folded)}
    kept: list[str] = []
    for place, character in enumerate(folded):
        kind = unicodedata.category(character)
        if kind != "Mn":
            symbol = kind[0] in "MSP" and character not in ".%$¢€£" and place not in signs
            kept.append(" " if symbol else character)
    return _CURRENCY_AFTER.sub(r"\2\1", "".join(kept))
