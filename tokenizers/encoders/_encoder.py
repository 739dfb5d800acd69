"""Front end, projection and transformer as one ``Encoder``.

Axes: B batch, N samples (16 kHz), T frames, D width.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unitone.errors import ConfigError
from unitone.nn.linear import LayerNorm, Linear, Precision
from unitone.tokenizers.encoders._architecture import Architecture
from unitone.tokenizers.encoders._frontend import FrontEnd
from unitone.tokenizers.encoders._transformer import Attention, Transformer
from unitone.tokenizers.encoders._weights import Checkpoint


class SpeechEncoder:
    """A frozen HuBERT or WavLM up to the last block that was asked for."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        architecture: Architecture,
        attentions: list[Attention],
        *,
        name: str,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.name = name
        self.dim = architecture.dim
        self.num_layers = architecture.num_layers
        self.hop = architecture.hop
        self.receptive_field = architecture.receptive_field
        self.normalize = architecture.normalize
        self.weight_hash = checkpoint.weight_hash()
        self.device = device
        weights = checkpoint.weights
        self._front_end = FrontEnd(checkpoint, architecture, precision=precision, device=device)
        self._norm = LayerNorm(
            weights, "projection.norm", epsilon=architecture.epsilon, device=device
        )
        self._projection = (
            Linear(
                weights["projection.weight"], weights["projection.bias"],
                precision=precision, device=device,
            )
            if architecture.projects
            else None
        )  # fmt: skip
        self._transformer = Transformer(
            checkpoint, architecture, attentions, precision=precision, device=device
        )

    def features(
        self,
        waveforms: Float[Tensor, "B N"],
        lengths: Int[Tensor, "B"],
        *,
        layer: int,
        final_norm: bool = False,
    ) -> Float[Tensor, "B T D"]:
        """Return h_layer (``Encoder.features``).

        ``final_norm`` adds the layer norm that follows the last block of pre-LN models, which is
        what Transformers and s3prl return as their last hidden state.

        Raises:
            ConfigError: the encoder was not built up to ``layer``, or has no such norm.
        """
        built = len(self._transformer.blocks)
        if not 0 <= layer <= built:
            raise ConfigError(f"this {self.name} was built up to layer {built}, not {layer}")
        if final_norm and not (self._transformer.pre_norm and layer == self.num_layers):
            raise ConfigError(f"{self.name} has no final layer norm after layer {layer}")
        with torch.no_grad():
            rows, spans = self._frames(waveforms, lengths)
            state = next(islice(self._transformer.states(rows, spans), layer, None))
            state = self._transformer.norm(state) if final_norm else state
            return pad_sequence(list(state.split(spans)), batch_first=True)

    @torch.no_grad()
    def states(
        self, waveforms: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Iterator[Float[Tensor, "B T D"]]:
        """Yield h_0, h_1, … of every block that was built, padded with zeros."""
        rows, spans = self._frames(waveforms, lengths)
        for state in self._transformer.states(rows, spans):
            yield pad_sequence(list(state.split(spans)), batch_first=True)

    def _frames(
        self, waveforms: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "M D"], list[int]]:
        """Return the projected frames of all utterances, packed, and how many each has."""
        samples = waveforms.to(self.device, torch.float32)
        frames = [
            self._front_end(row[:length])
            for row, length in zip(samples, self._checked(lengths, samples), strict=True)
        ]
        rows = self._norm(torch.cat(frames))
        rows = rows if self._projection is None else self._projection(rows)
        return rows.float(), [len(one) for one in frames]

    def _checked(self, lengths: Int[Tensor, "B"], samples: Float[Tensor, "B N"]) -> list[int]:
        numbers = [int(length) for length in lengths.tolist()]
        for row, number in enumerate(numbers):
            if not self.receptive_field <= number <= samples.shape[1]:
                raise ValueError(
                    f"utterance {row} of the batch has {number} samples; {self.name} needs "
                    f"{self.receptive_field}..{samples.shape[1]}"
                )
        return numbers
