"""BLEU and chrF of translations, as pure functions: sacreBLEU's, from counts that can be resampled.

BLEU (Papineni et al. 2002) is the geometric mean of the 1- to 4-gram precisions times the brevity
penalty, with sacreBLEU's (Post 2018) tokenization and exponential smoothing; chrF2 (Popović 2015)
the F2 of character 1- to 6-grams. Both run from 0 to 100 and are scores of a corpus, not means of
sentences. sacreBLEU counts the n-grams; the two formulas stand here for many resamples at once.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Num

from unitone.errors import ConfigError, CorpusError
from unitone.eval import scoring
from unitone.eval.scoring import Measure
from unitone.eval.statistics import DEFAULT, Formulas, Interval, Resampling, intervals

Tokenizer = Literal["auto", "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none"]
"""sacreBLEU's tokenizers of words; auto = by the target language, see `tokenizer_of`."""

_ORDER = 4
_CHARACTER_ORDER = 6
BLEU_COLUMNS = slice(0, 2 + 2 * _ORDER)
"""Of `ngram_counts`: hypothesis and reference words, right and all n-grams of 1 to 4 words."""
CHRF_COLUMNS = slice(2 + 2 * _ORDER, 2 + 2 * _ORDER + 3 * _CHARACTER_ORDER)
"""For n-grams of 1 to 6 characters: of the hypothesis, of the reference, of both."""
_SPACELESS = {"ja", "th", "lo", "km", "my"}


@dataclass(frozen=True, kw_only=True)
class TranslationScore:
    """BLEU and chrF of a corpus, 0 to 100."""

    sentences: int
    bleu: float
    bleu_interval: Interval | None
    """95 % bootstrap interval; None for a single sentence."""
    chrf: float
    chrf_interval: Interval | None
    precisions: tuple[float, ...]
    """Of 1- to 4-grams, 0 to 100, not smoothed."""
    brevity_penalty: float
    hypothesis_words: int
    reference_words: int
    signature: str
    """BLEU's, in sacreBLEU's form."""
    chrf_signature: str

    @property
    def ratio(self) -> float:
        """Hypothesis words per reference word; under 1 BLEU is cut by the brevity penalty."""
        return self.hypothesis_words / max(self.reference_words, 1)

    @property
    def measures(self) -> dict[str, Measure]:
        """Both scores, by the name of a table's column."""
        return {
            "BLEU": Measure(value=self.bleu, interval=self.bleu_interval),
            "chrF": Measure(value=self.chrf, interval=self.chrf_interval),
        }

    @property
    def signatures(self) -> dict[str, str]:
        """Both signatures."""
        return {"signature": self.signature, "chrf_signature": self.chrf_signature}

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON values."""
        values = asdict(self)
        return {name: values[name] for name in values if name not in self.signatures}


def tokenizer_of(language: str) -> Tokenizer:
    """Return the tokenizer that ``auto`` means for a target language.

    Chinese has one of its own; of the other languages without spaces, characters are counted,
    since sacreBLEU's analyzers for them are not installed with it.

    >>> tokenizer_of("de"), tokenizer_of("zh-CN"), tokenizer_of("ja")
    ('13a', 'zh', 'char')
    """
    base = language.lower().replace("_", "-").split("-")[0]
    if base in ("zh", "yue"):
        return "zh"
    return "char" if base in _SPACELESS else "13a"


def score_translation(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    tokenizer: Tokenizer = "13a",
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
) -> TranslationScore:
    """Score translations, each against the reference at its place.

    Args:
        references: one right translation for each.
        hypotheses: as many; an empty text for nothing.
        tokenizer: how BLEU finds words.
        resampling: of the intervals.
        clusters: a speaker or the like for each; equal ones are resampled together.

    >>> score = score_translation(["zwei kleine Hunde spielen"], ["zwei kleine Hunde spielen"])
    >>> round(score.bleu), round(score.chrf)
    (100, 100)
    """
    counts = ngram_counts(references, hypotheses, tokenizer=tokenizer)
    return score_of(counts, tokenizers=(tokenizer,), resampling=resampling, clusters=clusters)


def ngram_counts(
    references: Sequence[str], hypotheses: Sequence[str], *, tokenizer: Tokenizer = "13a"
) -> Int[np.ndarray, "N 28"]:
    """Return what each pair adds to the sums the scores are made of.

    Raises:
        CorpusError: there are no pairs, or not as many of both.
        ConfigError: the tokenizer needs a package that isn't installed.
    """
    if len(references) != len(hypotheses) or not references:
        raise CorpusError(f"{len(references)} references, {len(hypotheses)} hypotheses")
    metrics = (_bleu_metric(tokenizer), _chrf_metric())
    # the same per-sentence counts that sacreBLEU's own significance tests resample
    parts = [metric._extract_corpus_statistics(hypotheses, [references]) for metric in metrics]
    return np.concatenate([np.array(part, np.int64) for part in parts], axis=1)


@cache
def _bleu_metric(tokenizer: Tokenizer) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    if tokenizer == "auto":
        raise ConfigError("the tokenizer auto needs a target language; see tokenizer_of")
    try:
        return BLEU(tokenize=tokenizer, force=True)
    except (ImportError, RuntimeError) as error:
        extra = tokenizer.split("-")[0]
        raise ConfigError(
            f"the tokenizer {tokenizer} isn't installed: pip install 'sacrebleu[{extra}]'"
        ) from error


@cache
def _chrf_metric() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def bleu_of(sums: Num[np.ndarray, "R 10"]) -> Float[np.ndarray, " R"]:
    """Return BLEU from the sums of `ngram_counts`, smoothed like NIST's mteval-v13a.

    An order without a match counts as 1/2 match, the next such one as 1/4, and so on; without a
    single matching word, or a hypothesis that is never four words long, BLEU is 0.
    """
    hypothesis, reference = sums[:, 0], sums[:, 1]
    right, total = sums[:, 2 : 2 + _ORDER].astype(np.float64), sums[:, 2 + _ORDER :]
    missed = (right == 0) & (total > 0)
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=1), right)
    defined = (right.any(axis=1)) & (total > 0).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.log(smoothed / total).mean(axis=1)
        brevity = np.minimum(0.0, 1 - reference / hypothesis)
    return np.where(defined, 100 * np.exp(mean + brevity), 0.0)


def chrf_of(sums: Num[np.ndarray, "R 18"]) -> Float[np.ndarray, " R"]:
    """Return chrF2 from the sums of `ngram_counts`.

    Precision and recall are means over the orders that both sides have, then
    F2 = 5 P R / (4 P + R).
    """
    hypothesis, reference, both = (sums[:, start::3].astype(np.float64) for start in range(3))
    used = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(used.sum(axis=1), 1)
    precision = np.divide(both, hypothesis, out=np.zeros_like(both), where=used).sum(1) / orders
    recall = np.divide(both, reference, out=np.zeros_like(both), where=used).sum(1) / orders
    below = 4 * precision + recall
    scores = np.zeros(len(sums))
    np.divide(500 * precision * recall, below, out=scores, where=below > 0)
    return scores


FORMULAS: Formulas = {
    "bleu": (BLEU_COLUMNS, bleu_of),
    "chrf": (CHRF_COLUMNS, chrf_of),
}


def score_of(
    counts: Int[np.ndarray, "N 28"],
    *,
    tokenizers: Sequence[Tokenizer],
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
    together: str | None = None,
) -> TranslationScore:
    """Turn the counts of `ngram_counts` into a score; ``together`` names the clusters."""
    sums = counts.sum(axis=0, keepdims=True)
    values = {name: float(of(sums[:, columns])[0]) for name, (columns, of) in FORMULAS.items()}
    found = intervals(counts, FORMULAS, resampling=resampling, clusters=clusters)
    hypothesis, reference = int(sums[0, 0]), int(sums[0, 1])
    right, total = sums[0, 2 : 2 + _ORDER], sums[0, 2 + _ORDER : 2 + 2 * _ORDER]
    return TranslationScore(
        sentences=len(counts),
        bleu=values["bleu"],
        bleu_interval=found["bleu"],
        chrf=values["chrf"],
        chrf_interval=found["chrf"],
        precisions=tuple(float(p) for p in 100 * right / np.maximum(total, 1)),
        brevity_penalty=float(np.exp(min(0.0, 1 - reference / hypothesis))) if hypothesis else 0.0,
        hypothesis_words=hypothesis,
        reference_words=reference,
        signature=_signature(
            resampling, together, case="mixed", eff="no", tok="+".join(tokenizers), smooth="exp"
        ),
        chrf_signature=_signature(
            resampling, together, case="mixed", eff="yes", nc=_CHARACTER_ORDER, nw=0, space="no"
        ),
    )


def _signature(resampling: Resampling, together: str | None, **parts: object) -> str:
    from importlib.metadata import version

    resampled = scoring.resampling_parts(resampling, together=together)
    return scoring.signature(nrefs=1, **parts, version=version("sacrebleu"), **resampled)
