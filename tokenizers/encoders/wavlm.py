"""WavLM (Chen et al. 2022, arXiv 2110.13900): HuBERT with a gated relative position bias.

| name            | blocks | width | feed-forward | heads | front end  | blocks are | waveform   |
| --------------- | ------ | ----- | ------------ | ----- | ---------- | ---------- | ---------- |
| wavlm-base      | 12     | 768   | 3072         | 12    | group norm | post-LN    | as it is   |
| wavlm-base-plus | 12     | 768   | 3072         | 12    | group norm | post-LN    | as it is   |
| wavlm-large     | 24     | 1024  | 4096         | 16    | layer norm | pre-LN     | normalized |

To the logit of query i and key j, head h adds gate[h, i] * P[h, j - i] (§3.1 and equation 4):

* P[h, r] = E[bucket(r), h], one table E for all blocks (it is stored with the first);
* gate = a (b c - 1) + 2, where c is a constant of the head and a, b are sigmoids of a linear map of
  the head's slice of the attention's *input* (not of the query). The map has eight outputs, summed
  by fours; here the sums are folded into the map, which then has two.

Axes: T frames, H heads, W = 2 T - 1 distances.
"""

import math
from collections.abc import Collection, Sequence

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from unitone.nn.linear import Linear, Precision
from unitone.tokenizers.encoders._architecture import Architecture, infer, weights_of
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.encoders._frontend import Stem
from unitone.tokenizers.encoders._transformer import Attention, HeadBias, attend, projections
from unitone.tokenizers.encoders._weights import Checkpoint

PUBLISHED = {
    "wavlm-base": "microsoft/wavlm-base",
    "wavlm-base-plus": "microsoft/wavlm-base-plus",
    "wavlm-large": "microsoft/wavlm-large",
}
"""Names on the command line and the hub repositories they stand for."""

_SIZES = {(12, 768): "wavlm-base", (24, 1024): "wavlm-large"}


def recognizes(names: Collection[str]) -> bool:
    """Say whether weights of these canonical names are a WavLM: with a relative position bias."""
    return "bias.weight" in names


def describe(checkpoint: Checkpoint) -> tuple[str, Architecture]:
    """Return the name of the size and the sizes; base-plus cannot be told from base."""
    table = checkpoint.weights.get("bias.weight")
    architecture = infer(checkpoint, num_heads=None if table is None else table.shape[1])
    size = architecture.num_layers, architecture.dim
    return _SIZES.get(size, f"wavlm-{size[0]}x{size[1]}"), architecture


def bucket(
    distances: Int[Tensor, "*W"], *, num_buckets: int, max_distance: int
) -> Int[Tensor, "*W"]:
    """Return the bucket of each distance key - query: exact when near, logarithmic when far."""
    half, exact = num_buckets // 2, num_buckets // 4
    size = distances.abs()
    # float32 and this order of operations decide ties at the borders of buckets
    logarithm = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + logarithm * (half - exact)).long().clamp(max=half - 1)
    return (distances > 0).long() * half + torch.where(size < exact, size, far)


class RelativeBias:
    """P, shared by all blocks; kept for the longest utterance seen."""

    def __init__(
        self, table: Float[Tensor, "K H"], *, max_distance: int, device: torch.device
    ) -> None:
        self._table = table.to(device)
        self._max_distance = max_distance
        self._by_distance = self._compute(512)

    def __call__(self, num_frames: int) -> Float[Tensor, "H T T"]:
        """Return P for every query and every key, the *last* key first, as a view.

        As P depends on j - i only, each row is a window of one vector, which stays in the cache.
        Strides are never negative, so that the windows move the right way only over reversed keys.
        """
        if self._by_distance.shape[1] < 2 * num_frames - 1:
            self._by_distance = self._compute(num_frames)
        known = self._by_distance
        heads, width = known.shape
        start = (width + 1) // 2 - num_frames  # the window of query 0
        return known.as_strided((heads, num_frames, num_frames), (width, 1, 1), start)

    def _compute(self, num_frames: int) -> Float[Tensor, "H W"]:
        distances = torch.arange(num_frames - 1, -num_frames, -1)
        index = bucket(distances, num_buckets=len(self._table), max_distance=self._max_distance)
        return self._table[index.to(self._table.device)].T.contiguous()


class GatedAttention:
    """Multi-head attention whose position bias each head and query scales by its gate."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        block: int,
        bias: RelativeBias,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        weights = weights_of(checkpoint, f"block.{block}")
        self.bias = bias
        self.scale = weights["gate.scale"].flatten().to(device)  # (H,)
        self.num_heads = len(self.scale)
        self.gate_weight, self.gate_bias = (  # both gates are sums of four outputs
            reduce(weights[f"gate.{part}"], "(gate four) ... -> gate ...", "sum", gate=2).to(device)
            for part in ("weight", "bias")
        )
        self.qkv = projections(weights, self.num_heads, precision=precision, device=device)
        self.out = Linear(
            weights["out.weight"], weights["out.bias"], precision=precision, device=device
        )

    def __call__(self, rows: Float[Tensor, "M D"], spans: Sequence[int]) -> Float[Tensor, "M D"]:
        """Attend within each utterance."""
        parts = [
            attend(
                qkv,
                self.num_heads,
                HeadBias(gate=gate.T[..., None], distances=self.bias(len(gate))),
            )
            for qkv, gate in zip(
                self.qkv(rows).split(list(spans)),
                self._gates(rows).split(list(spans)),
                strict=True,
            )
        ]
        return self.out(torch.cat(parts))

    def _gates(self, rows: Float[Tensor, "M D"]) -> Float[Tensor, "M H"]:
        heads = rows.float().unflatten(1, (self.num_heads, -1))
        a, b = F.linear(heads, self.gate_weight, self.gate_bias).sigmoid().unbind(-1)
        return a * (b * self.scale - 1.0) + 2.0


def build(
    checkpoint: Checkpoint,
    architecture: Architecture,
    num_blocks: int,
    *,
    name: str,
    precision: Precision,
    device: torch.device,
) -> SpeechEncoder:
    """Build the first ``num_blocks`` blocks of a WavLM."""
    bias = RelativeBias(
        checkpoint.weights["bias.weight"],
        max_distance=architecture.max_distance,
        device=device,
    )
    attentions: list[Attention] = [
        GatedAttention(checkpoint, block, bias, precision=precision, device=device)
        for block in range(num_blocks)
    ]
    stem = Stem(checkpoint, architecture, precision=precision, device=device)
    return SpeechEncoder(
        checkpoint, architecture, stem, attentions, name=name, precision=precision, device=device
    )
