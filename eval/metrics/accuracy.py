"""Accuracy of labels (language, gender, speaker), as pure functions.

Intervals are Wilson's score intervals (Wilson 1927) at 95 %, which unlike the bootstrap stay honest
when everything is right; the paired test of two systems is McNemar's, exact (McNemar 1947): under
no difference, the utterances that only one of them has right are fair coin tosses.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from unitone.errors import CorpusError
from unitone.eval import scoring
from unitone.eval.scoring import Measure
from unitone.eval.statistics import Comparison, Interval

NO_LABEL = "(none)"
"""What stands for a missing or empty answer; it is never right."""
_Z = 1.959963984540054
"""Standard normal quantile of 0.975."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fares against the rest."""

    label: str
    reference: int
    """Utterances of the class."""
    hypothesis: int
    """Utterances taken for it."""
    right: int

    @property
    def precision(self) -> float:
        """Share of the right ones among those taken for the class; NaN without any."""
        return self.right / self.hypothesis if self.hypothesis else math.nan

    @property
    def recall(self) -> float:
        """Share of the class that was found; NaN for a class that isn't in the references."""
        return self.right / self.reference if self.reference else math.nan

    @property
    def recall_interval(self) -> Interval | None:
        """Wilson's interval of the recall."""
        return wilson(self.right, self.reference)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: right / mean of reference and hypothesis."""
        both = self.reference + self.hypothesis
        return 2 * self.right / both if both else math.nan


@dataclass(frozen=True, kw_only=True)
class AccuracyScore:
    """Accuracy of a corpus, a share of 1."""

    utterances: int
    right: int
    labels: tuple[str, ...]
    """Classes of the references, then those that only the hypotheses have, each sorted."""
    confusion: Int[np.ndarray, "classes classes"]
    """Utterances of the row's class that were taken for the column's."""

    @property
    def accuracy(self) -> float:
        """Share of the utterances whose label is right."""
        return self.right / self.utterances

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.right, self.utterances)

    @property
    def measure(self) -> Measure:
        """The accuracy in per cent."""
        return Measure(value=self.accuracy, interval=self.interval, scale=100.0)

    @property
    def classes(self) -> list[ClassScore]:
        """Each label's scores."""
        return [
            ClassScore(
                label=label,
                reference=int(self.confusion[place].sum()),
                hypothesis=int(self.confusion[:, place].sum()),
                right=int(self.confusion[place, place]) if label != NO_LABEL else 0,
            )
            for place, label in enumerate(self.labels)
        ]

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the references' classes, whatever their sizes."""
        recalls = [one.recall for one in self.classes if one.reference]
        return sum(recalls) / len(recalls)

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON values."""
        return {
            "utterances": self.utterances,
            "right": self.right,
            "accuracy": self.accuracy,
            "accuracy_interval": scoring.to_json(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "classes": {
                one.label: {
                    "reference": one.reference,
                    "hypothesis": one.hypothesis,
                    "precision": scoring.finite(one.precision),
                    "recall": scoring.finite(one.recall),
                    "recall_interval": scoring.to_json(one.recall_interval),
                    "f1": scoring.finite(one.f1),
                }
                for one in self.classes
            },
        }


def score_accuracy(references: Sequence[str], hypotheses: Sequence[str | None]) -> AccuracyScore:
    """Score labels, each against the reference at its place; None for no answer.

    Raises:
        CorpusError: there are none, or not as many of both.

    >>> score_accuracy(["en", "de", "fr", "de"], ["en", "de", "de", None]).accuracy
    0.5
    """
    if len(references) != len(hypotheses) or not references:
        raise CorpusError(f"{len(references)} references, {len(hypotheses)} hypotheses")
    answers = [one or NO_LABEL for one in hypotheses]
    known = sorted(set(references))
    labels = (*known, *sorted(set(answers) - set(known)))
    place = {label: number for number, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for (label, answer), times in Counter(zip(references, answers, strict=True)).items():
        confusion[place[label], place[answer]] = times
    right = sum(map(is_right, references, hypotheses))
    return AccuracyScore(
        utterances=len(references), right=right, labels=labels, confusion=confusion
    )


def is_right(reference: str, hypothesis: str | None) -> bool:
    """Tell whether a label is right; no answer never is."""
    return bool(hypothesis) and reference == hypothesis


def wilson(right: int, total: int) -> Interval | None:
    """Return Wilson's 95 % score interval of a share; None of nothing.

    The bounds are where the share would be just 1.96 of its standard errors away:
    (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n).

    >>> found = wilson(10, 10)
    >>> round(found.low, 3), round(found.high, 3)
    (0.722, 1.0)
    """
    if not total:
        return None
    share, square = right / total, _Z**2 / total
    middle = share + square / 2
    reach = math.sqrt(square * (share * (1 - share) + square / 4))
    return Interval(
        low=max(0.0, (middle - reach) / (1 + square)) if right else 0.0,
        high=min(1.0, (middle + reach) / (1 + square)) if right < total else 1.0,
    )


def mcnemar(only_this: int, only_other: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; never 0, however small it is.

    Args:
        only_this: utterances that this system has right and the other wrong.
        only_other: those where it is the other way round.

    Five against none: twice the chance of five heads in a row.

    >>> mcnemar(5, 0)
    0.0625
    """
    total, fewer = only_this + only_other, min(only_this, only_other)
    if 2 * fewer == total:
        return 1.0
    # integers as long as they need to be: exact for any number of utterances
    ways, tail = 1, 1
    for taken in range(1, fewer + 1):
        ways = ways * (total - taken + 1) // taken
        tail += ways
    # rounded up to the smallest float: no outcome of fair tosses is impossible
    return min(1.0, max(float(2 * tail / (1 << total)), math.ulp(0.0)))


def compare_accuracy(
    references: Sequence[str], hypotheses: Sequence[str | None], other: Sequence[str | None]
) -> Comparison:
    """Compare two systems on the same utterances: McNemar's test.

    The interval of the difference is the score interval for paired shares of Agresti and Min
    (2005): Wald's with half an utterance added to each of the four cells.
    """
    this = [is_right(*one) for one in zip(references, hypotheses, strict=True)]
    that = [is_right(*one) for one in zip(references, other, strict=True)]
    total = len(this)
    only_this = sum(one and not two for one, two in zip(this, that, strict=True))
    only_other = sum(two and not one for one, two in zip(this, that, strict=True))
    more, less, n = only_this + 0.5, only_other + 0.5, total + 2
    middle = (more - less) / n
    reach = _Z * math.sqrt((more + less) - (more - less) ** 2 / n) / n
    return Comparison(
        difference=(only_this - only_other) / total,
        interval=Interval(low=max(-1.0, middle - reach), high=min(1.0, middle + reach)),
        p_value=mcnemar(only_this, only_other),
    )
