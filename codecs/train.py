"""Train a unit decoder: ``python -m unitone.codecs.train --tokens T --manifest M --out OUT``.

OUT is a run's folder; ``OUT/last`` (and ``OUT/best``, with ``--valid-split``) is the model,
and OUT itself may be given wherever a model is asked for. Killed at any moment, the same command
goes on from the last checkpoint.

``--head mel`` is a voice after a minute on a CPU; ``--head istft`` trains against discriminators
and wants a GPU for a day or more.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from unitone import program
from unitone.codecs.options import BackboneConfig, LossConfig
from unitone.config import command_line, option_value
from unitone.errors import ConfigError
from unitone.train.config import TrainConfig

MEL = TrainConfig(
    steps=1_500,
    lr=3e-3,
    betas=(0.9, 0.99),
    weight_decay=0.01,
    decay_share=0.5,
    warmup_steps=50,
    precision="auto",
    best="mel",
    log_every=25,
)
ISTFT = replace(
    MEL,
    steps=400_000,
    lr=2e-4,
    betas=(0.8, 0.99),
    clip_norm=10.0,
    schedule="cosine",
    warmup_steps=1000,
    ema=0.999,
    explode_factor=None,  # adversaries rise and fall
)


@dataclass(frozen=True, kw_only=True)
class DecoderTrainConfig:
    """With the defaults of ``--head mel``."""

    tokens: Path
    """Shards that ``python -m tokenizers.encode`` wrote."""
    manifest: Path
    """The manifest they were made from: it knows where the recordings are."""
    out: Path
    """Folder of the run."""
    tokenizer: Path | None = None
    """The tokenizer's directory, to be kept beside the model: with it, it can also encode."""
    split: str | None = None
    """Only the utterances of this split."""
    valid_split: str | None = None
    """Measure the losses on this split, and keep the model that is best by ``--best``."""
    head: Literal["mel", "istft"] = "mel"
    """mel: regression, then Griffin-Lim. istft: adversarial; with it, other options have other
    defaults."""
    crop_frames: int = 64
    """Units in a crop."""
    batch_crops: int = 8
    """Crops in a batch."""
    speaker_embeddings: Path | None = None
    """Safetensors file with a vector for every utterance id or speaker; default: a learned one for
    each speaker of the shards."""
    discriminator_width: float = 1.0
    """Channels of the discriminators, as a share of HiFi-GAN's and DAC's."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = MEL
    certify: bool = False
    """Check this set-up, as ``unitone certify`` checks a language model's, instead of training it;
    nothing is written to ``--out``."""

    def __post_init__(self) -> None:
        if (self.head == "istft") != isinstance(self, IstftTrainConfig):
            raise ConfigError(f"{type(self).__name__} is not of --head {self.head}")


@dataclass(frozen=True, kw_only=True)
class IstftTrainConfig(DecoderTrainConfig):
    """With the defaults of ``--head istft``: HiFi-GAN's training, Vocos's size."""

    head: Literal["istft"] = field()
    """mel: regression, then Griffin-Lim. istft: adversarial."""
    crop_frames: int = 96
    """Units in a crop."""
    batch_crops: int = 16
    """Crops in a batch."""
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(dim=512, num_blocks=8))
    train: TrainConfig = ISTFT


def train(config: DecoderTrainConfig) -> None:
    """Train, or go on training, as ``config`` says; or certify it."""
    if config.certify:
        from unitone.codecs.jobs.certify import certify

        return certify(config)  # pyright: ignore[reportArgumentType]
    from unitone.codecs.jobs import train as job

    return job.train(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    kind = IstftTrainConfig if option_value(argv, "--head") == "istft" else DecoderTrainConfig
    config = command_line(kind, argv, __doc__, renamed={"--validation-split": "--valid-split"})
    return program.run(lambda: train(config))


if __name__ == "__main__":
    raise SystemExit(main())
