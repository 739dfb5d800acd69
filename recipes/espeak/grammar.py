"""A small synchronous grammar: one clause, said exactly alike in English, German and French.

A ``Clause`` is the meaning; ``render`` says it in one language, with that language's articles,
cases, agreement, elision and word order (German brackets its infinitive, French puts colors
after the noun). Two different clauses never share a sentence in any of the languages, so a
split of the clauses is a split of the sentences in all three at once. Sentences are lower case
without punctuation; the apostrophe of a French elision is part of its word.

There are millions of clauses over a vocabulary that a small model learns in minutes on a CPU.
"""

from dataclasses import dataclass
from typing import Literal

from unitone.recipes.espeak.lexicon import NUMBERS, Adjective, Noun, Phrase, Verb

Language = Literal["en", "de", "fr"]
LANGUAGES: tuple[Language, ...] = ("en", "de", "fr")

Count = Literal["the", "the all", "a", "two", "three", "four", "five", "six"]
"""``the all`` is the definite plural, "the dogs"."""


@dataclass(frozen=True)
class NounPhrase:
    count: Count
    qualities: tuple[Adjective, ...]
    """At most one size or age and one color, in this order."""
    noun: Noun

    @property
    def plural(self) -> bool:
        """Whether verbs and adjectives agree with it in the plural."""
        return self.count not in ("the", "a")


@dataclass(frozen=True, kw_only=True)
class Clause:
    """A meaning. A ``modal`` governs the infinitive of ``verb``; ``quality`` goes with "be"."""

    subject: NounPhrase | Phrase
    verb: Verb
    modal: Verb | None = None
    negated: bool = False
    object: NounPhrase | None = None
    quality: Adjective | None = None
    very: bool = False
    place: Phrase | None = None
    time: Phrase | None = None


def render(clause: Clause, language: Language) -> str:
    """Say ``clause`` in ``language``."""
    match language:
        case "en":
            return _english(clause)
        case "de":
            return _german(clause)
        case "fr":
            return _french(clause)


def _is_plural(subject: NounPhrase | Phrase) -> bool:
    return isinstance(subject, NounPhrase) and subject.plural


def _join(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)


def _english(clause: Clause) -> str:
    plural = _is_plural(clause.subject)
    if clause.modal:
        verb = _join(clause.modal.english[plural], clause.verb.english[2])
    else:
        verb = clause.verb.english[plural]
    if clause.negated:
        be, _, rest = verb.partition(" ")
        verb = _join(be, "not", rest)
    return _join(
        _english_phrase(clause.subject),
        verb,
        _english_phrase(clause.object) if clause.object else None,
        "very" if clause.very else None,
        clause.quality.english if clause.quality else None,
        clause.place.english if clause.place else None,
        clause.time.english if clause.time else None,
    )


def _english_phrase(phrase: NounPhrase | Phrase) -> str:
    if isinstance(phrase, Phrase):
        return phrase.english
    noun = phrase.noun.english.split()[phrase.plural]
    qualities = [quality.english for quality in phrase.qualities]
    first = (*qualities, noun)[0]
    article = "an" if phrase.count == "a" and first[0] in "aeiou" else phrase.count.split()[0]
    return _join(article, *qualities, noun)


def _german(clause: Clause) -> str:
    finite = (clause.modal or clause.verb).german[_is_plural(clause.subject)]
    return _join(
        _german_phrase(clause.subject, accusative=False),
        finite,
        clause.time.german if clause.time else None,
        _german_phrase(clause.object, accusative=True) if clause.object else None,
        "nicht" if clause.negated else None,
        "sehr" if clause.very else None,
        clause.quality.german if clause.quality else None,
        clause.place.german if clause.place else None,
        clause.verb.german[1] if clause.modal else None,
    )


_GERMAN_THE = {"m": "der", "f": "die", "n": "das"}
_GERMAN_A = {"m": "ein", "f": "eine", "n": "ein"}
_STRONG_ENDING = {"m": "er", "f": "e", "n": "es"}  # after "ein", which shows no case itself


def _german_phrase(phrase: NounPhrase | Phrase, *, accusative: bool) -> str:
    """Decline: weak endings after the definite article, mixed after "ein", strong after numbers."""
    if isinstance(phrase, Phrase):
        return phrase.german
    gender, singular, plural, *weak = phrase.noun.german.split()
    noun = plural if phrase.plural else weak[0] if weak and accusative else singular
    masculine_accusative = accusative and gender == "m"
    match phrase.count:
        case "the":
            article = "den" if masculine_accusative else _GERMAN_THE[gender]
            ending = "en" if masculine_accusative else "e"
        case "the all":
            article, ending = "die", "en"
        case "a":
            article = "einen" if masculine_accusative else _GERMAN_A[gender]
            ending = "en" if masculine_accusative else _STRONG_ENDING[gender]
        case number:
            article, ending = NUMBERS[number][0], "e"
    return _join(article, *(quality.german + ending for quality in phrase.qualities), noun)


def _french(clause: Clause) -> str:
    finite = (clause.modal or clause.verb).french[_is_plural(clause.subject)]
    sentence = _join(
        _french_phrase(clause.subject),
        "ne" if clause.negated else None,
        finite,
        "pas" if clause.negated else None,
        clause.verb.french[2] if clause.modal else None,
        _french_phrase(clause.object) if clause.object else None,
        "très" if clause.very else None,
        _french_adjective(clause.quality, clause.subject) if clause.quality else None,
        clause.place.french if clause.place else None,
        clause.time.french if clause.time else None,
    )
    return _elide(sentence)


def _french_adjective(
    adjective: Adjective, bearer: NounPhrase | Phrase, *, next_word: str | None = None
) -> str:
    gender = bearer.gender if isinstance(bearer, Phrase) else bearer.noun.french[0]
    masculine, feminine, masculines, feminines, before_vowel = adjective.french.split()
    if _is_plural(bearer):
        return feminines if gender == "f" else masculines
    if gender == "f":
        return feminine
    return before_vowel if next_word and _elides(next_word) else masculine


def _french_phrase(phrase: NounPhrase | Phrase) -> str:
    if isinstance(phrase, Phrase):
        return phrase.french
    gender, singular, plural = phrase.noun.french.split()
    noun = plural if phrase.plural else singular
    before, after = [], []
    for quality in phrase.qualities:
        if quality.aspect == "color":
            after.append(_french_adjective(quality, phrase))
        else:
            before.append(_french_adjective(quality, phrase, next_word=noun))
    match phrase.count:
        case "the":
            article = "la" if gender == "f" else "le"
        case "the all":
            article = "les"
        case "a":
            article = "une" if gender == "f" else "un"
        case number:
            article = NUMBERS[number][1]
    return _join(article, *before, noun, *after)


def _elides(word: str) -> bool:
    return word[0] in "aeiouhéèêâ"  # every h of the lexicon is mute


def _elide(sentence: str) -> str:
    words: list[str] = []
    for word in sentence.split():
        if words and words[-1] in ("le", "la", "ne") and _elides(word):
            words[-1] = f"{words[-1][0]}'{word}"
        else:
            words.append(word)
    return " ".join(words)
