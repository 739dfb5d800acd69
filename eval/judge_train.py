"""Train the ASR judge: ``python -m eval.judge train --manifest M/manifest.jsonl --out exp/judge``.

On recordings of other speakers and sentences than it will judge; of the embedded corpus:
``python -m recipes.espeak --voices judge --hours 2 --out judge``. OUT is a run's folder and stands
for the judge in it. Killed at any moment, the same command goes on.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from unitone import config as configs
from unitone import program, seeding
from unitone.config import command_line
from unitone.eval.judge.augment import AugmentConfig
from unitone.eval.judge.data import (
    Recordings,
    RecordingSource,
    drop_too_short,
    read_recordings,
)
from unitone.eval.judge.judge import Judge, Origin
from unitone.eval.judge.model import CtcObjective, Network, NetworkConfig
from unitone.eval.normalizers import NormalizerName
from unitone.train.trainer import TrainConfig, Trainer

logger = logging.getLogger(__name__)

TRAINING = TrainConfig(
    steps=1_500,
    lr=8e-3,
    optimizer="muon",
    weight_decay=0.05,
    warmup_steps=50,
    decay_share=0.5,
    precision="bf16",
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
    recordings, targets = drop_too_short(
        recordings, [settings.encode(text) for text in recordings.texts]
    )
    network = Network(
        settings, generator=seeding.torch_generator(config.train.seed, "judge", "weights")
    )
    judge = Judge(network, _origin(config, recordings))
    logger.info(
        "%d utterances, %.2f h, %d speakers; %.2f M parameters",
        len(recordings.texts),
        recordings.seconds / 3600,
        len(recordings.speakers),
        sum(parameter.numel() for parameter in network.parameters()) / 1e6,
    )
    augment = configs.to_dict(config.augment)
    Trainer(
        config.train,
        networks={"judge": CtcObjective(network)},
        source=RecordingSource(
            recordings=recordings,
            targets=targets,
            max_frames=config.batch_frames,
            seed=config.train.seed,
            augment=config.augment,
        ),
        out=config.out,
        save_model=judge.save,
        settings={
            "manifest": recordings.sha256,
            "split": config.split,
            "normalizer": config.normalizer,
            "network": configs.to_dict(settings),
            "augment": {"formants": augment.pop("vtlp"), **augment},  # its name before
            "batch_frames": config.batch_frames,
            "train": configs.to_dict(config.train),
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
    config = command_line(JudgeTrainConfig, argv, __doc__, renamed={"--formants": "--vtlp"})
    return program.run(lambda: train(config))


if __name__ == "__main__":
    raise SystemExit(main())
