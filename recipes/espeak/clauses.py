"""Draws clauses that make sense, and says which split owns each.

Who does what where is a table: nobody reads an apple, and only pets lie under the bed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from unitone.recipes.espeak.grammar import Clause, Count, NounPhrase, render
from unitone.recipes.espeak.lexicon import (
    ADJECTIVES,
    BE,
    CAN,
    HE,
    NOUNS,
    PLACES,
    SHE,
    TIMES,
    VERBS,
    WANT,
    Adjective,
    Phrase,
)

_Option = TypeVar("_Option")

Split = Literal["train", "dev", "test"]

_DEFINITE: tuple[Count, ...] = ("the", "the all")
_NUMBERED: tuple[Count, ...] = ("two", "three", "four", "five", "six")
_INDEFINITE: tuple[Count, ...] = ("a", *_NUMBERED)
_ANY: tuple[Count, ...] = (*_DEFINITE, *_INDEFINITE)


@dataclass(frozen=True)
class _Action:
    """Who may do what to what, where; space-separated keys of the lexicon."""

    verb: str
    subjects: str
    objects: str = ""
    places: str = ""
    counts: Sequence[Count] = _ANY
    timed: bool = True


_GROWN = "man woman he she"
_YOUNG = "boy girl child"
_PEOPLE = f"{_GROWN} {_YOUNG}"
_PETS = "dog cat"
_THINGS = "apple book letter flower"
_OUTDOORS = "garden park street beach"

_INTRANSITIVE = (
    _Action("play", f"{_YOUNG} {_PETS} he she", "", f"{_OUTDOORS} house school behind-school"),
    _Action("sleep", f"{_PEOPLE} {_PETS}", "", "on-bed house garden under-tree car"),
    _Action("run", f"{_PEOPLE} dog horse", "", f"{_OUTDOORS} behind-house"),
    _Action("sing", f"{_PEOPLE}", "", "garden kitchen park school street under-tree car"),
    _Action("sing", "bird", "", "garden park"),
    _Action("work", _GROWN, "", "garden kitchen school market house"),
    _Action("wait", f"{_PEOPLE} dog", "", "before-house before-school behind-house park car"),
)
_TRANSITIVE = (
    _Action(
        "see",
        f"{_PEOPLE} {_PETS}",
        "man woman boy girl child dog cat bird horse car",
        "garden park street beach before-house behind-school market",
        timed=False,
    ),
    _Action("see", f"{_PEOPLE}", "house flower book letter apple cake", timed=False),
    _Action("buy", _PEOPLE, "apple book flower cake", "market"),
    _Action("buy", _GROWN, "car house dog cat horse"),
    _Action("read", _PEOPLE, "book letter", "garden kitchen park school on-bed under-tree beach"),
    _Action("eat", _PEOPLE, "apple cake", "kitchen garden park school beach before-house"),
    _Action("look for", _PEOPLE, "dog cat child", "garden park street house beach"),
    _Action("look for", _PEOPLE, "book letter", "house kitchen garden car school"),
    _Action(
        "have", _PEOPLE, "dog cat bird horse car house book flower", "", _INDEFINITE, timed=False
    ),
)
_REST_PLACES = "on-table under-table on-bed under-bed car kitchen"


def draw(generator: np.random.Generator) -> Clause:
    """Draw a clause; the kinds of clause are balanced for learning, not by their number."""
    kind = generator.random()
    if kind < 0.35:
        return _draw_action(generator, _INTRANSITIVE)
    if kind < 0.75:
        return _draw_action(generator, _TRANSITIVE)
    return _draw_state(generator) if kind < 0.9 else _draw_location(generator)


def split_of(clause: Clause) -> Split:
    """Return the split that owns ``clause``, whatever the seed: 80 % train, 10 % dev, 10 % test."""
    digest = hashlib.blake2b(render(clause, "en").encode(), digest_size=8).digest()
    tenth = int.from_bytes(digest, "little") % 10
    return "dev" if tenth == 0 else "test" if tenth == 1 else "train"


def _draw_action(generator: np.random.Generator, actions: Sequence[_Action]) -> Clause:
    action = _one(generator, actions)
    subject = _draw_subject(generator, action.subjects, _ANY)
    modal, negated = None, False
    if generator.random() < 0.25 and action.verb != "have":
        modal = WANT if generator.random() < 0.5 else CAN
    elif not action.objects and _is_definite(subject):
        negated = generator.random() < 0.25
    place = None
    if action.places and generator.random() < 0.5:
        place = PLACES[_one(generator, action.places.split())]
    bearer = subject.noun.key if isinstance(subject, NounPhrase) else ""
    objects = " ".join(key for key in action.objects.split() if key != bearer)
    return Clause(
        subject=subject,
        verb=VERBS[action.verb],
        modal=modal,
        negated=negated,
        object=_draw_noun_phrase(generator, objects, action.counts) if objects else None,
        place=place,
        time=_draw_time(generator, rate=0.3 if action.timed else 0.0),
    )


def _draw_state(generator: np.random.Generator) -> Clause:
    """Draw "the red car is very old": a quality of an aspect that the subject does not show."""
    subject = _draw_subject(generator, f"{' '.join(NOUNS)} he she", _DEFINITE)
    if isinstance(subject, Phrase):
        options = ["tired", "old"]
    else:
        shown = {quality.aspect for quality in subject.qualities}
        keys = f"{subject.noun.qualities} {subject.noun.states}".split()
        options = [key for key in keys if ADJECTIVES[key].aspect not in shown]
    if not options:
        return _draw_state(generator)
    quality = ADJECTIVES[_one(generator, options)]
    return Clause(
        subject=subject,
        verb=BE,
        negated=generator.random() < 0.25,
        quality=quality,
        very=quality.aspect != "color" and generator.random() < 0.3,
        time=_draw_time(generator, rate=0.4 if quality.aspect == "state" else 0.0),
    )


def _draw_location(generator: np.random.Generator) -> Clause:
    """Draw "two books are on the table"."""
    subject = _draw_noun_phrase(generator, f"{_THINGS} cake {_PETS}", (*_DEFINITE, *_NUMBERED))
    return Clause(
        subject=subject,
        verb=BE,
        negated=_is_definite(subject) and generator.random() < 0.25,
        place=PLACES[_one(generator, _REST_PLACES.split())],
    )


def _draw_subject(
    generator: np.random.Generator, keys: str, counts: Sequence[Count]
) -> NounPhrase | Phrase:
    key = _one(generator, keys.split())
    if key in ("he", "she"):
        return HE if key == "he" else SHE
    return _draw_noun_phrase(generator, key, counts)


def _draw_noun_phrase(
    generator: np.random.Generator, keys: str, counts: Sequence[Count]
) -> NounPhrase:
    noun = NOUNS[_one(generator, keys.split())]
    colors: list[Adjective] = []
    others: list[Adjective] = []
    for key in noun.qualities.split():
        (colors if ADJECTIVES[key].aspect == "color" else others).append(ADJECTIVES[key])
    qualities = []
    if others and generator.random() < 0.35:
        qualities.append(_one(generator, others))
    if colors and generator.random() < 0.4:
        qualities.append(_one(generator, colors))
    singular: list[Count] = [count for count in counts if count in ("the", "a")]
    plural: list[Count] = [count for count in counts if count not in ("the", "a")]
    count = _one(generator, plural if not singular or generator.random() < 0.5 else singular)
    return NounPhrase(count, tuple(qualities), noun)


def _draw_time(generator: np.random.Generator, *, rate: float) -> Phrase | None:
    return _one(generator, TIMES) if generator.random() < rate else None


def _is_definite(subject: NounPhrase | Phrase) -> bool:
    return isinstance(subject, Phrase) or subject.count in _DEFINITE


def _one(generator: np.random.Generator, options: Sequence[_Option]) -> _Option:
    return options[int(generator.integers(len(options)))]
