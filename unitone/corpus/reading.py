"""The options every stage that reads a corpus shares."""

import math
from dataclasses import dataclass
from pathlib import Path

from unitone.corpus.corpus import Corpus, read_corpus
from unitone.corpus.draw import Draw, draw
from unitone.errors import CorpusError


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
