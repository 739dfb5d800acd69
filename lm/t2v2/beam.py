"""Prefix beam search over CTC's posteriors, with an n-gram model of words and a lexicon.

Prefix beam search (Graves & Jaitly 2014; Hannun et al. 2014, arXiv 1408.2873) sums the paths of
each text, where the greedy reading follows the likeliest one. A language model scores each word
when it is complete, whatever tokens spell it. Axes: T frames, C classes (0 is the blank).
"""

import functools
import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unitone.errors import ConfigError
from unitone.lm.t2v2.words import Decode

LIKELY = 1e-4
"""Tokens less likely than this are looked at only where a frame has nothing likelier."""
MOST = 32
"""Tokens that are looked at in a frame."""
TEN = math.log(10)
NEVER = -99.0
"""Log10 of a probability that ARPA files write for 0."""

Prefix = tuple[int, ...]


class Ngrams:
    """An n-gram model of words with backing off, out of an ARPA file; scores in nats."""

    def __init__(self, path: Path) -> None:
        """Read a file, as KenLM's ``lmplz`` or SRILM write it.

        Raises:
            ConfigError: it isn't there, or no ARPA file.
        """
        self._log_p: dict[tuple[str, ...], float] = {}
        self._backoff: dict[tuple[str, ...], float] = {}
        try:
            with path.open(encoding="utf-8") as lines:
                self._read(lines)
        except (OSError, ValueError, IndexError) as error:
            raise ConfigError(
                f"--ngrams {path}: no ARPA file that can be read ({error})"
            ) from error
        if ("</s>",) not in self._log_p:
            raise ConfigError(f"--ngrams {path}: no ARPA file: it has no </s>")
        self.order = max(map(len, self._log_p))

    def _read(self, lines: Iterable[str]) -> None:
        size = 0
        for line in map(str.strip, lines):
            if line.startswith("\\") and line.endswith("-grams:"):
                size = int(line[1:-7])
            elif line == "\\end\\":
                return
            elif size and line:
                value, *rest = line.split()
                words = tuple(rest[:size])
                if len(words) < size:
                    raise ValueError(f"{line!r} is no {size}-gram")
                self._log_p[words] = float(value) * TEN
                if len(rest) > size:
                    self._backoff[words] = float(rest[size]) * TEN

    def score(self, history: tuple[str, ...], word: str) -> float:
        """Return the log-probability of a word after others; unknown ones are ``<unk>``."""
        if (word,) not in self._log_p:
            word = "<unk>"
        context = ("<s>", *history)[-(self.order - 1) :] if self.order > 1 else ()
        total = 0.0
        while True:
            if (*context, word) in self._log_p:
                return total + self._log_p[(*context, word)]
            if not context:
                return total + NEVER * TEN
            total += self._backoff.get(context, 0.0)
            context = context[1:]


class WordScorer:
    """What is added to the score of a text for its words."""

    def __init__(
        self,
        decode: Decode,
        *,
        ngrams: Ngrams | None = None,
        weight: float = 0.5,
        bonus: float = 0.0,
        lexicon: Iterable[str] | None = None,
    ) -> None:
        """Score by ``weight`` times an n-gram model and ``bonus`` a word, of a lexicon's only."""
        self._decode, self._ngrams, self._weight, self._bonus = decode, ngrams, weight, bonus
        self._lexicon = None if lexicon is None else frozenset(lexicon)
        beginnings = (word[:size] for word in self._lexicon or () for size in range(len(word) + 1))
        self._beginnings = frozenset(beginnings)
        self._of = functools.cache(self._score)
        self._total = functools.cache(self._sum)

    def __call__(self, prefix: Prefix, *, whole: bool) -> float:
        """Return what a text's complete words add; ``whole``: the last one is complete too."""
        return self._of(prefix, whole)

    def _score(self, prefix: Prefix, whole: bool) -> float:
        text = self._decode([*prefix])
        words = tuple(text.split())
        open_word = "" if whole or not words or text[-1:].isspace() else words[-1]
        complete = words[:-1] if open_word else words
        if self._lexicon is not None and not (
            self._lexicon.issuperset(complete) and (not open_word or open_word in self._beginnings)
        ):
            return -math.inf
        end = 0.0
        if whole and self._ngrams is not None:
            end = self._weight * self._ngrams.score(complete, "</s>")
        return self._total(complete) + end

    def _sum(self, words: tuple[str, ...]) -> float:
        if not words:
            return 0.0
        added = self._bonus
        if self._ngrams is not None:
            added += self._weight * self._ngrams.score(words[:-1], words[-1])
        return self._total(words[:-1]) + added


def search(
    log_p: Float[np.ndarray, "T C"],
    *,
    beam: int,
    scorer: Callable[..., float] | None = None,
) -> list[tuple[list[int], float]]:
    """Return the texts that are left of ``beam``, the best first, each with its score.

    Args:
        log_p: log-probabilities of the frames.
        beam: texts that are kept.
        scorer: a `WordScorer`.
    """
    add = scorer or _nothing
    beams: dict[Prefix, tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in log_p:
        made: dict[Prefix, list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        tokens = [*_likely(frame)]
        blank = float(frame[0])
        for prefix, (ended, going) in beams.items():
            both = _either(ended, going)
            made[prefix][0] = _either(made[prefix][0], both + blank)
            if prefix:  # the last token lasts
                last = going + float(frame[prefix[-1] + 1])
                made[prefix][1] = _either(made[prefix][1], last)
            for token, value in tokens:
                before = ended if prefix and prefix[-1] == token else both
                if before > -math.inf:
                    longer = made[(*prefix, token)]
                    longer[1] = _either(longer[1], before + value)
        best = heapq.nlargest(
            beam,
            made.items(),
            key=lambda one: _either(*one[1]) + add(one[0], whole=False),
        )
        beams = {prefix: (values[0], values[1]) for prefix, values in best}
    found = [
        ([*prefix], _either(*values) + add(prefix, whole=True)) for prefix, values in beams.items()
    ]
    return sorted(found, key=lambda one: -one[1])


def _likely(frame: Float[np.ndarray, "C"]) -> Iterator[tuple[int, float]]:
    """Yield the tokens that are likely at a frame, and how much."""
    tokens = np.flatnonzero(frame[1:] > math.log(LIKELY)).tolist()
    if len(tokens) > MOST:
        tokens = frame[1:].argpartition(-MOST)[-MOST:].tolist()
    for token in tokens or [int(frame[1:].argmax())]:
        yield token, float(frame[token + 1])


def _either(one: float, other: float) -> float:
    """Return log(exp(one) + exp(other))."""
    low, high = sorted((one, other))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _nothing(prefix: Prefix, *, whole: bool) -> float:
    return 0.0


def read_lexicon(path: Path) -> frozenset[str]:
    """Return the words of a file, the first of each line.

    Raises:
        ConfigError: it can't be read, or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--lexicon {path}: {error}") from error
    words = frozenset(line.split()[0] for line in lines if line.strip())
    if not words:
        raise ConfigError(f"--lexicon {path}: no word in it")
    return words
