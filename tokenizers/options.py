"""Options that several commands share; nothing here imports torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from unitone.errors import ConfigError

if TYPE_CHECKING:
    from unitone.tokenizers.extract import Extractor

Format = Literal["fairseq", "espnet", "jsonl"]
"""Files that `unitone.tokenizers.formats` writes."""


@dataclass(frozen=True, kw_only=True)
class FrameConfig:
    frame_policy: Literal["exact", "ceil", "pad_to_hop"] = "exact"
    """exact: whole frames only, as fairseq and Hugging Face. ceil: one frame per started hop, the
    last one repeated, as s3prl and ESPnet. pad_to_hop: the waveform is zero-padded instead."""
    window: float = 60.0
    """Seconds of audio the encoder sees at once (Whisper: 30 at most); shorter recordings are never
    cut."""
    context: float = 5.0
    """Seconds on both sides of a window that are seen but contribute no frames."""

    def __post_init__(self) -> None:
        if not self.window > 0 or not 0 <= 2 * self.context < self.window:
            raise ConfigError(
                f"window must be longer than twice the context, got --window {self.window} "
                f"--context {self.context} (seconds)"
            )


@dataclass(frozen=True, kw_only=True)
class ExtractorConfig:
    """All it takes to open an extractor, here or in a worker process."""

    ssl: str = "wavlm-large"
    """Encoder: a name (wavlm-large, hubert-base, mfcc …), a hub id, a directory or a .pt file."""
    layer: int | None = None
    """Output of this transformer block, counted from 1 (0: its input); mfcc has none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is several times faster on processors and GPUs that have it."""
    frames: FrameConfig = field(default_factory=FrameConfig)
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int | None = None
    """CPU threads of the encoder in each process; default: what torch takes."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {self.threads}")

    def open(self) -> "Extractor":
        """Load the encoder.

        Raises:
            ConfigError: an option is out of range.
            CheckpointError: the weights can't be read.
        """
        import torch

        from unitone import devices
        from unitone.tokenizers.encoder import is_standalone, load_encoder
        from unitone.tokenizers.extract import Extractor

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.layer is None and not is_standalone(self.ssl):
            raise ConfigError(
                f"--layer is required with --ssl {self.ssl}, e.g. --layer 21 for wavlm-large"
            )
        device = devices.resolve(self.device)
        encoder = load_encoder(self.ssl, layer=self.layer, precision=self.precision, device=device)
        if encoder.num_layers == 0 and self.layer is not None:
            raise ConfigError(f"--layer {self.layer}: {encoder.name} has no layers; leave it out")
        return Extractor(encoder=encoder, layer=self.layer or 0, frames=self.frames, device=device)  # pyright: ignore[reportArgumentType]

    def batch_seconds(self, asked: float | None) -> float:
        """Return seconds of audio per batch: what was asked for, else 160 on a GPU, 0 on a CPU."""
        if asked is not None:
            return asked
        from unitone import devices

        return 0.0 if devices.resolve(self.device).type == "cpu" else 160.0
