"""A tokenizer from recordings: ``python -m tokenizers.build --layer 21 --k 2000 --manifest M …``.

Utterances are drawn until there is enough speech for k-means, whatever the size of the corpus. One
streaming pass takes frames of each (never a file of features), k-means runs on them, and a second
pass over a few hours of the same utterances gives the units from which subwords are learnt and the
quality report is made. Killed at any moment and run again, it goes on from its last saved step and
ends in the same tokenizer.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unitone import config as configs
from unitone import program
from unitone.config import command_line
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError
from unitone.tokenizers.engines import Engine
from unitone.tokenizers.options import ExtractorConfig
from unitone.tokenizers.text.text import TextKind

SHARE = 0.2
"""Of the frames of an utterance, how many k-means learns from by default: neighbors are alike."""
RECORDED = {
    "duration_penalty": "switch_penalty",
    "unit_subwords": "pieces",
    "text_subwords": "text_pieces",
    "statistics_hours": "survey_hours",
}
"""Options that ``build.json`` knows by the names they had first."""
RENAMED = {
    f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for new, old in RECORDED.items()
}


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    out: Path
    """Directory for the tokenizer."""
    reading: ReadingConfig
    k: int = 2000
    """Number of units."""
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    sample_hours: float | None = None
    """Speech k-means learns from, utterances drawn by their ids; default: --sample-frames are a
    fifth of its frames, at least --statistics-hours. 0: the whole corpus is encoded."""
    sample_frames: int | None = None
    """Frames k-means learns from, drawn uniformly; default 256 k, at least 100,000."""
    init: Literal["k-means++", "random"] = "k-means++"
    redo: int = 1
    """Fits from different starts, of which the best is kept."""
    iterations: int = 20
    """Lloyd iterations at the most; they end earlier where they gain nothing."""
    centroids: Path | None = None
    """Take these instead of learning them: fairseq or ESPnet joblib, FAISS, .npy, .safetensors."""
    duration_penalty: float = 0.0
    """Price of a change of unit, times the mean squared distance of a frame to its centroid: fewer
    and longer runs (Kamper & van Niekerk 2021); 1 to 4 are usual, 0 is the nearest centroid."""
    deduplicate: bool = True
    """Store runs of one unit as the unit and its duration."""
    unit_subwords: int | None = None
    """Subwords over the units; 0 = none; default up to 2 k, as many as the data hold."""
    text: TextKind = "bytes"
    """How text becomes tokens."""
    text_subwords: int | None = None
    """Entries of the text model; sentencepiece only."""
    statistics_hours: float = 2.0
    """Speech, drawn from that of --sample-hours, that subwords and the report are made from."""
    seed: int = 0
    engine: Engine = "local"
    """local: this process. ray: the actors of a Ray cluster (RAY_ADDRESS, or one made here)."""

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 65_534:
            raise ConfigError(f"--k must be 2..65534, got {self.k}")
        if (
            self.unit_subwords is not None
            and self.unit_subwords != 0
            and self.unit_subwords <= self.k
        ):
            raise ConfigError(
                f"--unit-subwords must be more than k = {self.k}, or 0, got {self.unit_subwords}"
            )
        if self.capacity < self.k:
            raise ConfigError(f"--sample-frames {self.sample_frames} is less than k = {self.k}")
        if not 0 <= self.duration_penalty < math.inf:
            raise ConfigError(f"--duration-penalty must be 0 or more, got {self.duration_penalty}")
        if not self.statistics_hours > 0:
            raise ConfigError(
                f"--statistics-hours must be more than 0, got {self.statistics_hours}"
            )
        if self.sample_hours is not None and self.sample_hours < 0:
            raise ConfigError(f"--sample-hours must be 0 or more, got {self.sample_hours}")
        if self.centroids is not None and not self.centroids.is_file():
            raise ConfigError(f"--centroids {self.centroids}: no such file")
        if (self.text == "sentencepiece") != (self.text_subwords is not None):
            raise ConfigError("--text sentencepiece and --text-subwords N go together")

    @property
    def capacity(self) -> int:
        """Frames the sample holds at most."""
        return max(256 * self.k, 100_000) if self.sample_frames is None else self.sample_frames

    def sample_seconds(self, frame_rate: float) -> float:
        """Return the speech to draw, for an encoder of ``frame_rate`` frames a second."""
        if self.sample_hours is not None:
            return 3600 * self.sample_hours or math.inf
        return max(self.capacity / (SHARE * frame_rate), 3600 * self.statistics_hours)

    @property
    def sampling_identity(self) -> dict[str, Any]:
        """The options that decide which frames are sampled."""
        own = ("k", "init", "redo", "iterations", "centroids", "deduplicate", "pieces")
        later = (*own, "switch_penalty", "text", "text_pieces", "survey_hours", "sample_frames")
        kept = {name: value for name, value in self.identity.items() if name not in later}
        least = self.statistics_hours if self.sample_hours is None else None
        return {**kept, "capacity": self.capacity, "least_hours": least}

    @property
    def identity(self) -> dict[str, Any]:
        """The options that decide what comes out, as against those that say how to get there."""
        options = configs.to_dict(self)
        reading, extractor = options.pop("reading"), options.pop("extractor")
        del options["out"], options["engine"], extractor["device"], extractor["threads"]
        frames = extractor.pop("frames")
        known: dict[str, Any] = {**extractor, **frames, "split": reading["split"], **options}
        return {RECORDED.get(name, name): value for name, value in known.items()}


def build(config: BuildConfig) -> None:
    """Build the tokenizer, or what of it is missing."""
    from unitone.tokenizers.jobs import build as job

    job.build(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""

    def work() -> None:
        build(command_line(BuildConfig, argv, __doc__, renamed=RENAMED))

    return program.run(work)


if __name__ == "__main__":
    raise SystemExit(main())
