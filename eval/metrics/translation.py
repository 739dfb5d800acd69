"""BLEU, chrF and TER of translations, as pure functions: sacreBLEU's, from counts to be resampled.

BLEU (Papineni et al. 2002) is the geometric mean of the 1- to 4-gram precisions times the brevity
penalty, with sacreBLEU's (Post 2018) tokenization and exponential smoothing; chrF2 (Popović 2015)
the F2 of character 1- to 6-grams, chrF2++ of those and of words and their pairs; TER (Snover et al.
2006) the edits, shifts of phrases among them, per reference word. They run from 0 to 100 (TER
beyond) and are scores of a corpus, not means of sentences. sacreBLEU counts; the formulas stand
here for many resamples at once. A sentence may have several references.
"""

from collections.abc import Hashable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num

import unitone
from unitone.errors import ConfigError, CorpusError
from unitone.eval.languages import iso_639_1
from unitone.eval.scoring import Measure
from unitone.eval.statistics import DEFAULT, Formulas, Interval, Resampling, ScoreOf, intervals

Tokenizer = Literal[
    "auto",
    "13a",
    "intl",
    "char",
    "zh",
    "ja-mecab",
    "ko-mecab",
    "none",
    "spm",
    "flores101",
    "flores200",
    "spBLEU-1K",
]
"""sacreBLEU's tokenizers of words; auto = by the target language, see `tokenizer_of`."""
Texts = Sequence[str | Sequence[str]]
"""The reference of each sentence, or its several references."""

_ORDER = 4
_CHARACTER_ORDER = 6
BLEU_COLUMNS = slice(0, 2 + 2 * _ORDER)
"""Of `ngram_counts`: hypothesis and reference words, right and all n-grams of 1 to 4 words."""
CHRF_COLUMNS = slice(2 + 2 * _ORDER, 2 + 2 * _ORDER + 3 * _CHARACTER_ORDER)
"""For n-grams of 1 to 6 characters: of the hypothesis, of the reference, of both."""
_SPACELESS = {"ja", "th", "lo", "km", "my"}
_CHINESE = {"zh", "yue", "wuu", "nan", "hak", "gan", "hsn", "lzh"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is counted, by sacreBLEU's options."""

    lowercase: bool = False
    """Lower the case for BLEU and chrF."""
    chrf_words: int = 0
    """Longest n-grams of words in chrF; 2 makes it chrF2++."""
    ter: bool = False
    """Score TER as well (slow: seconds per thousand sentences); lower is better."""

    def __post_init__(self) -> None:
        if self.chrf_words < 0:
            raise ConfigError(f"--chrf-words must be 0 or more, got {self.chrf_words}")

    @property
    def chrf_name(self) -> str:
        """Its name, chrF or chrF++."""
        return f"chrF{'+' * min(self.chrf_words, 2)}"

    @property
    def formulas(self) -> Formulas:
        """Name of a score → its columns of `ngram_counts`, and how."""
        end = CHRF_COLUMNS.stop + 3 * self.chrf_words
        formulas: dict[str, tuple[slice, ScoreOf]] = {
            "bleu": (BLEU_COLUMNS, bleu_of),
            "chrf": (slice(CHRF_COLUMNS.start, end), chrf_of),
        }
        return formulas | ({"ter": (slice(end, end + 2), ter_of)} if self.ter else {})


PLAIN = Variant()


@dataclass(frozen=True, kw_only=True)
class TranslationScore:
    """BLEU and chrF of a corpus, 0 to 100, and TER where it was asked for."""

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
    """BLEU's, in sacreBLEU's form and order, what is ours after it."""
    chrf_signature: str
    chrf_name: str = "chrF"
    ter: float | None = None
    ter_interval: Interval | None = None
    ter_signature: str | None = None

    @property
    def ratio(self) -> float:
        """Hypothesis words per reference word; under 1 BLEU is cut by the brevity penalty."""
        return self.hypothesis_words / max(self.reference_words, 1)

    @property
    def measures(self) -> dict[str, Measure]:
        """The scores, by the name of a table's column."""
        found = {
            "BLEU": Measure(value=self.bleu, interval=self.bleu_interval),
            self.chrf_name: Measure(value=self.chrf, interval=self.chrf_interval),
        }
        if self.ter is not None:
            found["TER"] = Measure(value=self.ter, interval=self.ter_interval)
        return found

    @property
    def signatures(self) -> dict[str, str]:
        """Their signatures."""
        found = {"signature": self.signature, "chrf_signature": self.chrf_signature}
        return found | ({"ter_signature": self.ter_signature} if self.ter_signature else {})

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON values."""
        left_out = {"signature", "chrf_signature", "chrf_name", "ter_signature"}
        left_out |= {"ter", "ter_interval"} if self.ter is None else set()
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def tokenizer_of(language: str) -> Tokenizer:
    """Return the tokenizer that ``auto`` means for a target language.

    Chinese has one of its own; of the other languages without spaces, characters are counted,
    since sacreBLEU's analyzers for them are not installed with it.

    >>> tokenizer_of("deu"), tokenizer_of("zh-CN"), tokenizer_of("cmn"), tokenizer_of("ja")
    ('13a', 'zh', 'zh', 'char')
    """
    base = iso_639_1(language)
    if base in _CHINESE:
        return "zh"
    return "char" if base in _SPACELESS else "13a"


def score_translation(
    references: Texts,
    hypotheses: Sequence[str],
    *,
    tokenizer: Tokenizer = "13a",
    variant: Variant = PLAIN,
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
) -> TranslationScore:
    """Score translations, each against the reference, or references, at its place.

    Args:
        references: a right translation for each, or a list of them.
        hypotheses: as many; an empty text for nothing.
        tokenizer: how BLEU finds words.
        variant: lower case, chrF++, TER.
        resampling: of the intervals.
        clusters: a speaker or the like for each; equal ones are resampled together.

    >>> score = score_translation(["zwei kleine Hunde spielen"], ["zwei kleine Hunde spielen"])
    >>> round(score.bleu), round(score.chrf)
    (100, 100)
    """
    return score_of(
        ngram_counts(references, hypotheses, tokenizer=tokenizer, variant=variant),
        tokenizers=(tokenizer,),
        variant=variant,
        nrefs=number_of_references(references),
        resampling=resampling,
        clusters=clusters,
    )


def number_of_references(references: Texts) -> int | None:
    """Return how many references the sentences have; None if not as many each."""
    numbers = {1 if isinstance(one, str) else len(one) for one in references}
    return numbers.pop() if len(numbers) == 1 else None


def ngram_counts(
    references: Texts,
    hypotheses: Sequence[str],
    *,
    tokenizer: Tokenizer = "13a",
    variant: Variant = PLAIN,
) -> Num[np.ndarray, "N K"]:
    """Return what each pair adds to the sums the scores are made of: whole numbers, without TER.

    Raises:
        CorpusError: there are no pairs, not as many of both, or a sentence has no reference.
        ConfigError: the tokenizer needs a package or a file that isn't there.
    """
    if len(references) != len(hypotheses) or not references:
        raise CorpusError(f"{len(references)} references, {len(hypotheses)} hypotheses")
    lists = [[one] if isinstance(one, str) else list(one) for one in references]
    if not all(lists):
        raise CorpusError(f"sentence {lists.index([]) + 1} has an empty list of references")
    most = max(map(len, lists))
    streams = [[one[place] if place < len(one) else None for one in lists] for place in range(most)]
    metrics = [_bleu_metric(tokenizer, variant.lowercase), _chrf_metric(variant)]
    metrics += [_ter_metric()] if variant.ter else []
    # the same per-sentence counts that sacreBLEU's own significance tests resample
    parts = [metric._extract_corpus_statistics(hypotheses, streams) for metric in metrics]
    kind = np.float64 if variant.ter else np.int64  # TER takes the mean length of the references
    return np.concatenate([np.array(part, kind) for part in parts], axis=1)


@cache
def _bleu_metric(tokenizer: Tokenizer, lowercase: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    if tokenizer == "auto":
        raise ConfigError("the tokenizer auto needs a target language; see tokenizer_of")
    name = "flores101" if tokenizer == "spm" else tokenizer  # sacreBLEU's name for it now
    _require_model(name)
    try:
        return BLEU(tokenize=name, lowercase=lowercase, force=True)
    except (ImportError, RuntimeError) as error:
        extra = tokenizer.split("-")[0]
        raise ConfigError(
            f"the tokenizer {tokenizer} isn't installed: pip install 'sacrebleu[{extra}]'"
        ) from error


def _require_model(tokenizer: str) -> None:
    """Refuse a tokenizer whose model isn't there, which sacreBLEU would fetch unasked."""
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    if tokenizer not in SPM_MODELS:
        return
    address = SPM_MODELS[tokenizer]["url"]
    path = Path(SACREBLEU_DIR) / "models" / address.rsplit("/", 1)[1]
    if not path.is_file():
        raise ConfigError(
            f"the tokenizer {tokenizer} needs its SentencePiece model, which is not downloaded "
            f"here: save {address} as {path} (the variable SACREBLEU names another folder than "
            f"{SACREBLEU_DIR})"
        )


@cache
def _chrf_metric(variant: Variant) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=variant.chrf_words, lowercase=variant.lowercase)


@cache
def _ter_metric() -> Any:
    from sacrebleu.metrics.ter import TER

    return TER()


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


def chrf_of(sums: Num[np.ndarray, "R K"]) -> Float[np.ndarray, " R"]:
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


def ter_of(sums: Num[np.ndarray, "R 2"]) -> Float[np.ndarray, " R"]:
    """Return TER from the sums of `ngram_counts`: edits per reference word, in per cent."""
    edits, length = sums[:, 0].astype(np.float64), sums[:, 1].astype(np.float64)
    rates = np.where(edits > 0, 100.0, 0.0)
    np.divide(100 * edits, length, out=rates, where=length > 0)
    return rates


FORMULAS: Formulas = PLAIN.formulas


def score_of(
    counts: Num[np.ndarray, "N K"],
    *,
    tokenizers: Sequence[Tokenizer],
    variant: Variant = PLAIN,
    nrefs: int | None = 1,
    resampling: Resampling = DEFAULT,
    clusters: Sequence[Hashable] | None = None,
    together: str | None = None,
) -> TranslationScore:
    """Turn the counts of `ngram_counts` into a score.

    ``nrefs``: references a sentence, None if they differ; ``together`` names the clusters.
    """
    sums = counts.sum(axis=0, keepdims=True)
    formulas = variant.formulas
    values = {name: float(of(sums[:, columns])[0]) for name, (columns, of) in formulas.items()}
    found = intervals(counts, formulas, resampling=resampling, clusters=clusters)
    hypothesis, reference = int(sums[0, 0]), int(sums[0, 1])
    right, total = sums[0, 2 : 2 + _ORDER], sums[0, 2 + _ORDER : 2 + 2 * _ORDER]

    def signature(metric: Any, **changed: str) -> str:
        return _signature(metric, nrefs, resampling, together, **changed)

    return TranslationScore(
        sentences=len(counts),
        bleu=values["bleu"],
        bleu_interval=found["bleu"],
        chrf=values["chrf"],
        chrf_interval=found["chrf"],
        chrf_name=variant.chrf_name,
        ter=values.get("ter"),
        ter_interval=found.get("ter"),
        precisions=tuple(float(p) for p in 100 * right / np.maximum(total, 1)),
        brevity_penalty=float(np.exp(min(0.0, 1 - reference / hypothesis))) if hypothesis else 0.0,
        hypothesis_words=hypothesis,
        reference_words=reference,
        signature=signature(
            _bleu_metric(tokenizers[0], variant.lowercase),
            tok="+".join(_bleu_metric(one, False).tokenizer_signature for one in tokenizers),
        ),
        chrf_signature=signature(_chrf_metric(variant)),
        ter_signature=signature(_ter_metric()) if variant.ter else None,
    )


def _signature(
    metric: Any, nrefs: int | None, resampling: Resampling, together: str | None, **changed: str
) -> str:
    """Return sacreBLEU's own signature of a metric, and after it what is ours."""
    told = copy(metric)
    told.num_refs = -1 if nrefs is None else nrefs
    told.n_bootstrap, told.seed = resampling.resamples, resampling.seed
    found = told.get_signature()
    for name, value in changed.items():
        found.update(name, value)
    ours = {"by": together, "unitone": unitone.__version__}
    more = [f"{name}:{value}" for name, value in ours.items() if value is not None]
    return "|".join([str(found), *more])
