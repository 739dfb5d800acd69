"""Train a judge: ``python -m eval.judge train --manifest judge/manifest.jsonl --out exp/judge``.

On recordings of other voices, and of other sentences, than it is to judge; of the embedded corpus:
``python -m recipes.espeak --voices judge --hours 2 --out judge``. OUT is a run's folder and stands
for the judge in it. Killed at any moment, the same command goes on.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unitone import config as configs
from unitone import files, program, seeding
from unitone.config import command_line
from unitone.eval.judge.data import (
    AugmentConfig,
    Recordings,
    RecordingSource,
    read_recordings,
    without_hasty,
)
from unitone.eval.judge.judge import Judge, Origin
from unitone.eval.judge.model import CtcObjective, Network, NetworkConfig
from unitone.eval.normalizers import NormalizerName
from unitone.train.trainer import TrainConfig, Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgeTrainConfig:
    manifest: Path
    """Corpus of recordings with texts."""
    out: Path
    """Folder of the run."""
    split: str | None = "train"
    """Only the utterances of this split; None = all."""
    max_seconds: float | None = None
    """Stop after this time; the learning rate falls with the steps or the time, whichever is
    further."""
    steps: int = 1_500
    lr: float = 8e-3
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "muon"
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
    precision: Literal["fp32", "bf16"] = "bf16"
    """Of matrix products in training."""
    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 25
    workers: int = 0
    """Processes that make batches."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads."""

    @property
    def training(self) -> TrainConfig:
        """The trainer's settings."""
        return TrainConfig(
            steps=self.steps,
            max_seconds=self.max_seconds,
            lr=self.lr,
            optimizer=self.optimizer,
            weight_decay=0.05,
            warmup_steps=50,
            decay_share=0.5,
            precision=self.precision,
            seed=self.seed,
            save_every=self.save_every,
            log_every=self.log_every,
            workers=self.workers,
            device=self.device,
            threads=self.threads,
        )


def train(config: JudgeTrainConfig) -> None:
    """Train, or go on training, as ``config`` says."""
    recordings = read_recordings(
        config.manifest, split=config.split, num_mels=config.num_mels, name=config.normalizer
    )
    settings = NetworkConfig(
        characters="".join(sorted(set("".join(recordings.texts)))),
        num_mels=config.num_mels,
        dim=config.dim,
        blocks=config.blocks,
        kernel=config.kernel,
        dropout=config.dropout,
    )
    recordings, targets = without_hasty(
        recordings, [settings.encode(text) for text in recordings.texts]
    )
    network = Network(settings, generator=seeding.torch_generator(config.seed, "judge", "weights"))
    judge = Judge(network, _origin(config, recordings))
    logger.info(
        "%d utterances, %.2f h, %d voices; %.2f M parameters",
        len(recordings.texts),
        recordings.seconds / 3600,
        len(recordings.speakers),
        sum(parameter.numel() for parameter in network.parameters()) / 1e6,
    )
    Trainer(
        config.training,
        networks={"judge": CtcObjective(network)},
        source=RecordingSource(
            recordings=recordings,
            targets=targets,
            max_frames=config.batch_frames,
            seed=config.seed,
            augment=config.augment,
        ),
        out=config.out,
        save_model=judge.save,
        settings={
            "manifest": files.sha256(config.manifest),
            "split": config.split,
            "normalizer": config.normalizer,
            "network": configs.to_dict(settings),
            "augment": configs.to_dict(config.augment),
            "batch_frames": config.batch_frames,
            "train": configs.to_dict(config.training),
        },
    ).run()


def _origin(config: JudgeTrainConfig, recordings: Recordings) -> Origin:
    return Origin(
        normalizer=config.normalizer,
        speakers=recordings.speakers,
        utterances=len(recordings.texts),
        seconds=recordings.seconds,
        manifest=config.manifest.name,
        split=config.split,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(JudgeTrainConfig, argv, __doc__)
    return program.run(lambda: train(config))


if __name__ == "__main__":
    raise SystemExit(main())
