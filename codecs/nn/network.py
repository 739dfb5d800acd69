"""The unit decoder's network: what it is made of, and its two output heads.

``istft``: magnitude and phase of every bin, inverted (Vocos, arXiv 2306.00814, eq. 3-6); made for
adversarial training. ``mel``: magnitudes alone, trained on mel and linear distances, and phases by
the fast Griffin-Lim algorithm; a usable voice after a minute of training on a CPU.

Axes: B batch, T frames of units, S runs of equal units, N samples, F bins.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from unitone.codecs.nn.backbone import Backbone, DurationPredictor, SpeakerEmbedding, initialize
from unitone.codecs.nn.spectrum import Framing, framing_of, griffin_lim, trim, waveform
from unitone.codecs.options import BackboneConfig
from unitone.corpus.audio import SAMPLE_RATE

LOUDEST = 100.0
"""Largest magnitude a bin may have, as in Vocos: without it an early step can overflow."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    num_units: int
    frame_rate: float
    """Units a second."""
    speakers: tuple[str, ...]
    """Names, in the order of their numbers."""
    head: Literal["mel", "istft"] = "mel"
    """mel: magnitudes, phases by Griffin-Lim. istft: magnitudes and phases."""
    speaker_dim: int | None = None
    """Width of external speaker embeddings; None = a learned vector for each of ``speakers``."""
    receptive_field: int = 400
    """Samples that one frame of the encoder sees: 25 ms for MFCC, HuBERT and WavLM."""
    frames_per_unit: int = 1
    """Spectral frames for each unit; Griffin-Lim wants them 10 ms apart."""
    fft: int = 640
    """Samples of a window; four times their distance."""
    griffin_lim: int = 32
    """Iterations of the ``mel`` head."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    sample_rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        if self.num_units < 1 or not self.speakers:
            raise ValueError("at least one unit and one speaker are needed")
        width = 1 if self.speaker_dim is None else self.speaker_dim
        if min(self.frame_rate, self.frames_per_unit, width, self.fft) <= 0:
            raise ValueError("rates and widths must be above 0")
        if self.sample_rate % self.frame_rate:
            raise ValueError(
                f"{self.frame_rate:g} frames a second aren't whole samples at {self.sample_rate} Hz"
            )
        _ = self.framing  # refuses windows that can't be

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return round(self.sample_rate / self.frame_rate)

    @property
    def framing(self) -> Framing:
        """Where the spectral frames lie."""
        return framing_of(
            fft=self.fft,
            unit_hop=self.hop,
            receptive_field=self.receptive_field,
            frames_per_unit=self.frames_per_unit,
        )


class UnitNetwork(nn.Module):
    """Units, one a frame, and a speaker to a waveform; and runs of units to durations."""

    def __init__(self, config: NetworkConfig, *, generator: Generator) -> None:
        super().__init__()
        self.config = config
        self.framing = config.framing
        bins = self.framing.num_bins
        self.decoder = Backbone(
            config.backbone,
            num_units=config.num_units,
            voice=self._speaker_embedding(config.backbone.dim),
            num_outputs=bins if config.head == "mel" else 2 * bins,
            frames_per_unit=config.frames_per_unit,
        )
        self.durations = DurationPredictor(
            config.backbone,
            num_units=config.num_units,
            voice=self._speaker_embedding(config.backbone.duration_dim),
        )
        initialize(self, generator)
        with torch.no_grad():  # speech lies near here, and getting there would cost 100 steps
            self.decoder.head.bias[:bins] = -4.0

    def log_magnitudes(
        self,
        units: Int[Tensor, "B T"],
        speakers: Int[Tensor, "B"] | Float[Tensor, "B E"],
        valid: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B Tm F"]:
        """Return the natural logarithms of the magnitudes, in float32; the ``mel`` head."""
        assert self.config.head == "mel"
        return self.decoder(units, speakers, valid).float().clamp(max=_LOG_LOUDEST)

    def waves(
        self,
        units: Int[Tensor, "B T"],
        speakers: Int[Tensor, "B"] | Float[Tensor, "B E"],
        valid: Bool[Tensor, "B T"],
        *,
        generator: Generator,
    ) -> Float[Tensor, "B N"]:
        """Return T hops of samples for each row, zero after its last valid frame.

        ``generator`` draws the phases Griffin-Lim begins with; ``istft`` needs none.
        """
        frames = valid.repeat_interleave(self.config.frames_per_unit, dim=1)
        if self.config.head == "mel":
            wave = griffin_lim(
                self.log_magnitudes(units, speakers, valid).exp() * frames[:, :, None],
                self.framing,
                generator=generator,
                iterations=self.config.griffin_lim,
                valid=frames,
            )
        else:
            logs, phases = self.decoder(units, speakers, valid).float().chunk(2, dim=-1)
            spectra = torch.polar(logs.clamp(max=_LOG_LOUDEST).exp(), phases)
            wave = waveform(spectra, self.framing, frames)
        return trim(wave, self.framing) * valid.repeat_interleave(self.config.hop, dim=1)

    def _speaker_embedding(self, dim: int) -> SpeakerEmbedding:
        config = self.config
        return SpeakerEmbedding(
            num_speakers=len(config.speakers), embedding_dim=config.speaker_dim, dim=dim
        )


_LOG_LOUDEST = float(torch.tensor(LOUDEST).log())
