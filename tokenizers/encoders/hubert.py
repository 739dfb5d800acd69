"""HuBERT (Hsu et al. 2021, arXiv 2106.07447): masked prediction of k-means units.

| name          | blocks | width | feed-forward | heads | front end  | blocks are | waveform   |
| ------------- | ------ | ----- | ------------ | ----- | ---------- | ---------- | ---------- |
| hubert-base   | 12     | 768   | 3072         | 12    | group norm | post-LN    | as it is   |
| hubert-large  | 24     | 1024  | 4096         | 16    | layer norm | pre-LN     | normalized |
| hubert-xlarge | 48     | 1280  | 5120         | 16    | layer norm | pre-LN     | normalized |

The published units come from h_6 (k 50 to 200) and h_9 (k 500) of base and h_18 to h_20 of large.
"""

from collections.abc import Collection

import torch

from unitone.nn.linear import Precision
from unitone.tokenizers.encoders._architecture import Architecture, infer
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.encoders._frontend import Stem
from unitone.tokenizers.encoders._transformer import self_attentions
from unitone.tokenizers.encoders._weights import Checkpoint

PUBLISHED = {
    "hubert-base": "facebook/hubert-base-ls960",
    "hubert-large": "facebook/hubert-large-ll60k",
    "hubert-xlarge": "facebook/hubert-xlarge-ll60k",
}
"""Names on the command line and the hub repositories they stand for."""

_SIZES = {(12, 768): "hubert-base", (24, 1024): "hubert-large", (48, 1280): "hubert-xlarge"}


def recognizes(names: Collection[str]) -> bool:
    """Say whether weights of these canonical names are a HuBERT: with no table of positions."""
    return "bias.weight" not in names and "positions.weight" not in names


def describe(checkpoint: Checkpoint) -> tuple[str, Architecture]:
    """Return the name of the size and the sizes.

    The number of heads shows in no tensor: without a configuration it is 64-wide heads, but for
    xlarge, whose 16 heads are 80 wide.
    """
    dim = len(checkpoint.weights["norm.weight"]) if "norm.weight" in checkpoint.weights else 0
    known = checkpoint.hints.num_heads or (16 if dim == 1280 else None)
    architecture = infer(checkpoint, num_heads=known)
    size = architecture.num_layers, architecture.dim
    family = checkpoint.hints.family or "hubert"  # wav2vec 2.0 and UniSpeech are built alike
    own = f"{family}-{size[0]}x{size[1]}"
    return (_SIZES.get(size, own) if family == "hubert" else own), architecture


def build(
    checkpoint: Checkpoint,
    architecture: Architecture,
    num_blocks: int,
    *,
    name: str,
    precision: Precision,
    device: torch.device,
) -> SpeechEncoder:
    """Build the first ``num_blocks`` blocks of a HuBERT."""
    parts = self_attentions(
        checkpoint, architecture, num_blocks, precision=precision, device=device
    )
    stem = Stem(checkpoint, architecture, precision=precision, device=device)
    return SpeechEncoder(
        checkpoint, architecture, stem, parts, name=name, precision=precision, device=device
    )
