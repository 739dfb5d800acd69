"""What precedes the blocks, and the blocks, as one ``Encoder``.

Axes: B batch, N samples (16 kHz), T frames, M frames of all utterances, D width.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unitone.errors import ConfigError
from unitone.nn.linear import Precision
from unitone.tokenizers.encoders._architecture import Sizes
from unitone.tokenizers.encoders._transformer import Attention, Transformer
from unitone.tokenizers.encoders._weights import Checkpoint


@runtime_checkable
class Stem(Protocol):
    """From waveforms to the input of the blocks, which is packed.

    An utterance can have more rows than frames: what it was followed by for the attention to see.
    """

    def __call__(
        self, waveforms: Sequence[Float[Tensor, "_"]]
    ) -> tuple[Float[Tensor, "M D"], list[int]]: ...


class SpeechEncoder:
    """A frozen transformer up to the last block that was asked for."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sizes: Sizes,
        stem: Stem,
        attentions: Sequence[Attention],
        *,
        name: str,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.name = name
        self.dim = sizes.dim
        self.num_layers = sizes.num_layers
        self.hop = sizes.hop
        self.receptive_field = sizes.receptive_field
        self.longest = sizes.longest
        self.normalize = sizes.normalize
        self.weight_hash = checkpoint.weight_hash()
        self.device = device
        self._stem = stem
        self._transformer = Transformer(
            checkpoint, sizes, attentions, precision=precision, device=device
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
            rows, spans, counts = self._rows(waveforms, lengths)
            state = next(islice(self._transformer.states(rows, spans), layer, None))
            state = self._transformer.norm(state) if final_norm else state
            return _padded(state, spans, counts)

    @torch.no_grad()
    def states(
        self, waveforms: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> Iterator[Float[Tensor, "B T D"]]:
        """Yield h_0, h_1, … of every block that was built, padded with zeros."""
        rows, spans, counts = self._rows(waveforms, lengths)
        for state in self._transformer.states(rows, spans):
            yield _padded(state, spans, counts)

    def _rows(
        self, waveforms: Float[Tensor, "B N"], lengths: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "M D"], list[int], list[int]]:
        """Return the rows of all utterances, packed, and how many rows and frames each has."""
        samples = waveforms.to(self.device, torch.float32)
        sizes = self._checked(lengths, samples)
        rows, spans = self._stem([row[:n] for row, n in zip(samples, sizes, strict=True)])
        return rows, spans, [(size - self.receptive_field) // self.hop + 1 for size in sizes]

    def _checked(self, lengths: Int[Tensor, "B"], samples: Float[Tensor, "B N"]) -> list[int]:
        numbers = [int(length) for length in lengths.tolist()]
        most = min(samples.shape[1], self.longest or samples.shape[1])
        for row, number in enumerate(numbers):
            if not self.receptive_field <= number <= most:
                raise ValueError(
                    f"utterance {row} of the batch has {number} samples; {self.name} needs "
                    f"{self.receptive_field}..{most}"
                )
        return numbers


def _padded(
    state: Float[Tensor, "M D"], spans: Sequence[int], counts: Sequence[int]
) -> Float[Tensor, "B T D"]:
    parts = zip(state.split(list(spans)), counts, strict=True)
    return pad_sequence([part[:count] for part, count in parts], batch_first=True)
