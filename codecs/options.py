"""Options of the commands that the networks take over; nothing here imports torch."""

from dataclasses import dataclass

from unitone.errors import ConfigError

LONGEST = 60.0
"""Seconds that a codec encodes in one piece unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    dim: int = 256
    """Width of the blocks."""
    num_blocks: int = 4
    expansion: int = 3
    """Width inside a block, in units of ``dim``."""
    kernel: int = 7
    """Frames a block's convolution sees; odd."""
    duration_dim: int = 128
    """Width of the duration predictor."""
    duration_dropout: float = 0.1
    """CodeHiFiGAN has 0.5, for its hours of training on one voice."""

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ConfigError(f"--kernel must be odd, got {self.kernel}")
        if min(self.dim, self.num_blocks, self.expansion, self.kernel, self.duration_dim) < 1:
            raise ConfigError("every width and count of the backbone must be at least 1")
        if not 0 <= self.duration_dropout < 1:
            raise ConfigError(f"--duration-dropout must be in [0, 1), got {self.duration_dropout}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    linear: float = 0.5
    """Weight of the distance of linear log magnitudes beside that of mel; head ``mel``."""
    duration: float = 0.1
    """Weight of a run's deviance."""
    mel: float = 15.0
    """Weight of the multi-scale mel distance; head ``istft``, with DAC's weights."""
    adversarial: float = 1.0
    feature: float = 2.0
    """Weight of feature matching."""
