"""Train the ASR judge: ``python -m eval.judge train --manifest M/manifest.jsonl --out exp/judge``.

On recordings of other speakers and sentences than it will judge; of the embedded corpus:
``python -m recipes.espeak --voices judge --hours 2 --out judge``. OUT is a run's folder and stands
for the judge in it. Killed at any moment, the same command goes on.
"""

from dataclasses import dataclass, field
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.eval.judge.augment import AugmentConfig
from unitone.eval.normalizers import NormalizerName
from unitone.train.config import TrainConfig

TRAINING = TrainConfig(
    steps=1_500,
    lr=8e-3,
    optimizer="muon",
    weight_decay=0.05,
    warmup_steps=50,
    decay_share=0.5,
    precision="auto",
    save_every=500,
    log_every=25,
)


@dataclass(frozen=True, kw_only=True)
class JudgeTrainConfig:
    manifest: Path
    """Corpus of recordings with texts."""
    out: Path
    """Folder of the run."""
    split: str | None = "train"
    """Only the utterances of this split; None = all."""
    batch_frames: int = 4_000
    """Frames of 10 ms in a batch."""
    normalizer: NormalizerName = "basic"
    """How texts are written."""
    num_mels: int = 40
    """Mel bands."""
    dim: int = 192
    """Width of the network."""
    blocks: int = 6
    """Its depth."""
    kernel: int = 7
    """Frames of 40 ms that a block's convolution sees."""
    dropout: float = 0.0
    """Of what a block adds."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = TRAINING
    certify: bool = False
    """Check this set-up, as ``unitone certify`` checks a language model's, on the first utterances,
    instead of training it; nothing is written to ``--out``."""


def train(config: JudgeTrainConfig) -> None:
    """Train, or go on training, as ``config`` says; or certify it."""
    if config.certify:
        from unitone.eval.jobs.judge_certify import certify

        return certify(config)  # pyright: ignore[reportArgumentType]
    from unitone.eval.jobs import judge_train as job

    return job.train(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(JudgeTrainConfig, argv, __doc__, renamed={"--formants": "--vtlp"})
    return program.run(lambda: train(config))


if __name__ == "__main__":
    raise SystemExit(main())
