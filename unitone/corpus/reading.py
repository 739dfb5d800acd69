"""The options every stage that reads a corpus shares."""

import math
from dataclasses import dataclass
from pathlib import Path

from unitone.corpus.corpus import Corpus, read_corpus
from unitone.corpus.draw import Draw, draw
from unitone.errors import ConfigError, CorpusError


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    manifest: Path
    """Lhotse cuts, plain or NeMo JSON lines, a TSV of fairseq or Common Voice."""
    split: str | None = None
    """Only the utterances of this split."""
    strict: bool = False
    """Stop at the first utterance that can't be used, instead of listing it in skipped.jsonl."""
    workers: int = 2
    """Threads that decode audio; with --engine ray, actors."""
    batch_seconds: float | None = None
    """Audio per batch; default 160 on a GPU, and one utterance at a time on a CPU."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"--workers must be at least 0, got {self.workers}")
        if self.batch_seconds is not None and self.batch_seconds <= 0:
            raise ConfigError(f"--batch-seconds must be more than 0, got {self.batch_seconds:g}")

    def corpus(self) -> Corpus:
        """Read the manifest.

        Raises:
            ConfigError: it isn't there or isn't a manifest.
            CorpusError: nothing in it can be used; with ``strict``, anything can't.
        """
        corpus = read_corpus(self.manifest).only(self.split)
        if self.strict and corpus.skipped:
            raise CorpusError(f"--strict: {corpus.skipped[0].reason}")
        return corpus

    def draw(self, seconds: float, *, seed: int) -> Draw:
        """Draw utterances of ``seconds`` of speech, the whole corpus where it has no more.

        Raises:
            ConfigError: as `corpus`.
            CorpusError: as `corpus`.
        """
        if seconds == math.inf:
            return Draw.of(self.corpus())
        made = draw(
            self.manifest, split=self.split, seconds=seconds, seed=seed, workers=self.workers
        )
        if self.strict and made.skipped:
            raise CorpusError(f"--strict: {made.skipped[0].reason}")
        return made
