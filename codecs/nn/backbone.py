"""The network of the unit decoder: ConvNeXt blocks over frames, and a duration predictor.

Siuzdak 2023 (Vocos), arXiv 2306.00814, §3: the whole network works at the frame rate and a Fourier
transform does the upsampling. Ours differs in the input: unit and speaker embeddings, the speaker
added again before the head, where a voice's spectrum is decided. A row doesn't depend on its batch
mates.

Axes: B batch, T frames, S runs of equal units, D width, E width of an external speaker embedding.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional

from unitone.codecs.options import BackboneConfig
from unitone.nn.convnext import ConvNextBlock


class SpeakerEmbedding(nn.Module):
    """Of width D: a row of a table, or a projection of a given embedding."""

    def __init__(self, *, num_speakers: int, embedding_dim: int | None, dim: int) -> None:
        super().__init__()
        self.table: nn.Embedding | nn.Linear
        if embedding_dim is None:
            self.table = nn.Embedding(num_speakers, dim)
        else:
            self.table = nn.Linear(embedding_dim, dim)

    def forward(self, speakers: Int[Tensor, "B"] | Float[Tensor, "B E"]) -> Float[Tensor, "B D"]:
        """Return the vectors of speaker numbers, or of external embeddings."""
        vectors: Tensor = self.table(speakers)
        return vectors

    if TYPE_CHECKING:
        __call__ = forward


class Backbone(nn.Module):
    """Units and a speaker to ``num_outputs`` numbers for each of a unit's spectral frames."""

    def __init__(
        self,
        config: BackboneConfig,
        *,
        num_units: int,
        voice: SpeakerEmbedding,
        num_outputs: int,
        frames_per_unit: int,
    ) -> None:
        super().__init__()
        self.units = nn.Embedding(num_units, config.dim)
        self.voice = voice  # compat: the names of the weights, here and below
        self.frames_per_unit = frames_per_unit
        # tells the spectral frames of one unit apart
        self.place = nn.Parameter(torch.zeros(frames_per_unit, config.dim))
        self.blocks = nn.ModuleList(
            ConvNextBlock(
                config.dim,
                kernel=config.kernel,
                expansion=config.expansion,
                scale=1 / config.num_blocks,
                gelu="tanh",
            )
            for _ in range(config.num_blocks)
        )
        self.late_voice = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, num_outputs)

    def forward(
        self,
        units: Int[Tensor, "B T"],
        speakers: Int[Tensor, "B"] | Float[Tensor, "B E"],
        valid: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B Tm F"]:
        """Return the head's outputs; rows of frames that aren't valid are of no meaning."""
        voice = self.voice(speakers)[:, None]
        x = (self.units(units) + voice)[:, :, None] + self.place
        x = x.flatten(1, 2)
        valid = valid.repeat_interleave(self.frames_per_unit, dim=1)
        for block in self.blocks:
            x = block(x, valid)
        x = self.norm(x + self.late_voice(voice))
        outputs: Tensor = self.head(x)
        return outputs

    if TYPE_CHECKING:
        __call__ = forward


class DurationPredictor(nn.Module):
    """How many frames each run lasts, as a natural logarithm.

    Lee et al. 2022, arXiv 2107.05604, §3.2 (after FastSpeech 2): twice convolution, ReLU, layer
    norm and dropout, then a projection. Ours has embeddings of its own, so that it neither
    disturbs the decoder nor waits for it; knows the speaker; sees five runs where theirs sees
    three; works in batches; and is trained on whole sentences and on another distance
    (`unitone.codecs.nn.losses.duration_loss`).
    """

    def __init__(self, config: BackboneConfig, *, num_units: int, voice: SpeakerEmbedding) -> None:
        super().__init__()
        dim = config.duration_dim
        self.units = nn.Embedding(num_units, dim)
        self.voice = voice
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, 5, padding=2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.dropout = nn.Dropout(config.duration_dropout)
        self.project = nn.Linear(dim, 1)

    def forward(
        self,
        units: Int[Tensor, "B S"],
        speakers: Int[Tensor, "B"] | Float[Tensor, "B E"],
        valid: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "B S"]:
        """Return log(duration) for every run."""
        x = self.units(units) + self.voice(speakers)[:, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x * valid[:, :, None]
            x = functional.relu(convolution(x.transpose(1, 2)).transpose(1, 2))
            x = self.dropout(norm(x))
        logarithms: Tensor = self.project(x)[:, :, 0]
        return logarithms

    if TYPE_CHECKING:
        __call__ = forward


def durations_of(logarithms: Float[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Return whole frames, at least 1; what rounding takes from a run, the next ones get.

    Rounded one by one, the many short runs would make speech too fast.
    """
    ends = logarithms.exp().cumsum(dim=1).round()
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    return (ends - starts).clamp(min=1).long()


def initialize(module: nn.Module, generator: Generator) -> None:
    """Draw all weights anew from ``generator``: truncated normal 0.02, biases 0, as in Vocos.

    Embeddings are normal with deviation 1 over the root of their width, so that a unit and a
    speaker begin with a say of equal size.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            deviation = 0.02 if isinstance(part, nn.Linear) else (part.weight[0].numel()) ** -0.5
            nn.init.trunc_normal_(part.weight, std=deviation, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=1.0, generator=generator)
