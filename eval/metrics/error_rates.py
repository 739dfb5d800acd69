"""Word and character error rates of texts, as pure functions.

WER = (substitutions + deletions + insertions) / reference words, over the whole corpus, words being
what spaces part; CER the same over characters, the single spaces between words included, but for
those beside characters of scripts without spaces (`Spaces`). Texts are normalized first, by name
(`unitone.eval.normalizers`). Rates are shares of 1.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Num

from unitone.errors import CorpusError
from unitone.eval import scoring
from unitone.eval.metrics.edits import Edits, count_edits
from unitone.eval.normalizers import NormalizerName, normalizer, without_idle_spaces
from unitone.eval.scoring import Measure
from unitone.eval.statistics import DEFAULT, Formulas, Interval, Resampling, intervals

Spaces = Literal["auto", "count", "ignore"]
"""Whether a space is a character of the CER: auto, unless it stands beside a character of a script
without spaces (Chinese, Japanese, Thai, …), where it is the tokenizer's; always; never."""

_HITS, _SUB, _DEL, _INS = range(4)


@dataclass(frozen=True, kw_only=True)
class WerScore:
    """Error rates of a corpus."""

    utterances: int
    wrong: int
    """Utterances with at least one character wrong."""
    words: Edits
    characters: Edits
    interval: Interval | None
    """95 % bootstrap interval of the WER; None for a single utterance."""
    cer_interval: Interval | None
    """The same of the CER."""
    signature: str
    """What the numbers depend on; scores with the same one can be compared."""

    @property
    def wer(self) -> float:
        """Word errors per reference word; NaN without reference words."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character errors per reference character."""
        return self.characters.rate

    @property
    def sentence_error_rate(self) -> float:
        """Share of the utterances with an error."""
        return self.wrong / self.utterances

    @property
    def measures(self) -> dict[str, Measure]:
        """Both rates in per cent, by the name of a table's column."""
        return {
            "WER %": Measure(value=self.wer, interval=self.interval, scale=100.0),
            "CER %": Measure(value=self.cer, interval=self.cer_interval, scale=100.0),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON values."""
        return {
            "utterances": self.utterances,
            "wer": scoring.finite(self.wer),
            "wer_interval": scoring.to_json(self.interval),
            "cer": scoring.finite(self.cer),
            "cer_interval": scoring.to_json(self.cer_interval),
            "sentence_error_rate": self.sentence_error_rate,
            "words": self.words.to_json(),
            "characters": self.characters.to_json(),
        }


def word_errors(reference: str, hypothesis: str) -> Edits:
    """Count the word edits between two texts, as they are.

    One word replaced and one left out of four, so a WER of 0.5:

    >>> edits = word_errors("two dogs are playing", "two cats playing")
    >>> edits.substitutions, edits.deletions, edits.insertions, edits.rate
    (1, 1, 0, 0.5)
    """
    return count_edits(reference.split(), hypothesis.split())


def character_errors(reference: str, hypothesis: str) -> Edits:
    """Count the character edits between two texts, as they are.

    >>> character_errors("dogs", "dog").rate
    0.25
    """
    return count_edits(reference, hypothesis)


def score_wer(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    normalizer: NormalizerName = "basic",
    spaces: Spaces = "auto",
    languages: Sequence[str | None] | None = None,
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
) -> WerScore:
    """Score hypotheses, each against the reference at its place.

    Args:
        references: what was spoken.
        hypotheses: what was recognized, as many; an empty text for nothing.
        normalizer: name of what makes both texts comparable.
        spaces: which of them count as characters.
        languages: of each, where known; they say how case is lowered (Turkish).
        resampling: of the interval.
        clusters: a speaker or the like for each; equal ones are resampled together.

    Raises:
        CorpusError: the references have no word, or the numbers of texts differ.

    >>> round(score_wer(["two dogs", "a cat"], ["two dogs", "a bat"]).wer, 2)
    0.25
    """
    texts = normalized(references, hypotheses, name=normalizer, languages=languages)
    score = score_of(
        error_counts(texts, spaces=spaces),
        name=normalizer,
        spaces=spaces,
        resampling=resampling,
        clusters=clusters,
    )
    if not score.words.reference:
        raise CorpusError("the references have no words after normalization")
    return score


def normalized(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    name: NormalizerName,
    languages: Sequence[str | None] | None = None,
) -> list[tuple[str, str]]:
    """Normalize both texts of every pair, by its language where that is known."""
    if len(references) != len(hypotheses):
        raise CorpusError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    apply = normalizer(name)
    known = [None] * len(references) if languages is None else languages
    return [
        (apply(left, language), apply(right, language))
        for left, right, language in zip(references, hypotheses, known, strict=True)
    ]


def counted_characters(text: str, spaces: Spaces) -> str:
    """Return the characters of ``text`` that count.

    >>> [counted_characters("我 爱 new york", spaces) for spaces in ("auto", "count", "ignore")]
    ['我爱new york', '我 爱 new york', '我爱newyork']
    """
    if spaces == "auto":
        return without_idle_spaces(text)
    return text if spaces == "count" else text.replace(" ", "")


def error_counts(
    texts: Iterable[tuple[str, str]], *, spaces: Spaces = "auto"
) -> Int[np.ndarray, "N 9"]:
    """Return what each pair adds to the sums a score is made of.

    Columns: word hits, substitutions, deletions, insertions, the same four of characters, and
    whether anything is wrong.
    """
    rows = []
    for reference, hypothesis in texts:
        words = word_errors(reference, hypothesis)
        left, right = (counted_characters(one, spaces) for one in (reference, hypothesis))
        characters = character_errors(left, right)
        rows.append((*astuple(words), *astuple(characters), int(left != right)))
    return np.array(rows, np.int64).reshape(-1, 9)


def score_of(
    counts: Int[np.ndarray, "N 9"],
    *,
    name: NormalizerName,
    spaces: Spaces = "auto",
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
    together: str | None = None,
) -> WerScore:
    """Turn the counts of `error_counts` into a score; ``together`` names the clusters."""
    sums = [int(value) for value in counts.sum(axis=0)]
    found = intervals(counts, FORMULAS, resampling=resampling, clusters=clusters)
    return WerScore(
        utterances=len(counts),
        wrong=sums[8],
        words=Edits(*sums[:4]),
        characters=Edits(*sums[4:8]),
        interval=found["wer"],
        cer_interval=found["cer"],
        signature=scoring.signature(
            norm=normalizer(name).signature,
            words="spaces",
            cer_spaces=spaces,
            **scoring.resampling_parts(resampling, together=together),
        ),
    )


def error_rates(sums: Num[np.ndarray, "R 4"]) -> Float[np.ndarray, " R"]:
    """Return errors per reference item from hits, substitutions, deletions, insertions."""
    errors = sums[:, _SUB] + sums[:, _DEL] + sums[:, _INS]
    reference = sums[:, _HITS] + sums[:, _SUB] + sums[:, _DEL]
    rates = np.full(len(sums), np.nan)
    np.divide(errors, reference, out=rates, where=reference > 0)
    return rates


FORMULAS: Formulas = {"wer": (slice(0, 4), error_rates), "cer": (slice(4, 8), error_rates)}
"""Of the counts of `error_counts`."""
