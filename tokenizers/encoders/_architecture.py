"""The sizes of an encoder, inferred from its weights, and the exact set of weights they imply.

All are transformer blocks (``Sizes``); what Whisper has besides is in its own module. Both HuBERT
(Hsu et al. 2021, arXiv 2106.07447) and WavLM (Chen et al. 2022, arXiv 2110.13900) are a
convolutional front end, a convolutional position embedding and the blocks. They come in two styles:
*group norm* after the first convolution with post-LN blocks (base models) and *layer norm* after
every convolution with pre-LN blocks (large models).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unitone.errors import CheckpointError
from unitone.tokenizers.encoders._weights import Checkpoint, listing

_STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of every published model; HuBERT §3.1 (from wav2vec 2.0)
_EPSILON = 1e-5
_MAX_DISTANCE = 800  # WavLM §3.1; frames


@dataclass(frozen=True, kw_only=True)
class Sizes(ABC):
    """Of the blocks, which every family has, and of the frames that come to them."""

    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    pre_norm: bool
    """Layer norm before attention and feed-forward (large models) instead of after each sum."""
    epsilon: float
    normalize: bool
    """Whether the model was trained on waveforms of zero mean and unit variance."""

    @property
    @abstractmethod
    def hop(self) -> int:
        """Samples from one frame to the next."""

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """Samples that the first frame needs."""

    @property
    def longest(self) -> int | None:
        """Samples that the model can see at once; None: any number."""
        return None


@dataclass(frozen=True, kw_only=True)
class Architecture(Sizes):
    """Of HuBERT and WavLM."""

    front_norm: Literal["group", "layer"]
    channels: tuple[int, ...]
    """Output channels of each convolution of the front end."""
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    conv_bias: bool
    projects: bool
    """Whether a linear map leads from the front end's width to ``dim``."""
    position_kernel: int
    """Frames that the position convolution sees; even, so its output is one frame too long."""
    position_groups: int
    num_buckets: int
    """Buckets of the relative position bias; 0 for HuBERT, which has none."""
    max_distance: int
    """Distance in frames from which on all positions share a bucket."""
    position_norm: bool = False
    """Whether a batch norm comes before the position convolution (mHuBERT)."""

    @property
    def hop(self) -> int:
        """The strides of all convolutions."""
        return math.prod(self.strides)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the convolutions sees."""
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


def infer(checkpoint: Checkpoint, *, num_heads: int | None = None) -> Architecture:
    """Read the sizes off the weights; ``num_heads`` overrides the configuration's.

    Raises:
        CheckpointError: weights are missing, left over or of the wrong shape; all are named.
    """
    shapes = {name: tuple(weight.shape) for name, weight in checkpoint.weights.items()}
    try:
        architecture = _sizes(shapes, checkpoint, num_heads)
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint.where} has not all weights of a HuBERT or WavLM encoder, first of all "
            f"{error}; it has {listing(shapes) or 'none'}"
        ) from None
    require(checkpoint, expected_shapes(architecture))
    return architecture


def require(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a CheckpointError that names all weights that are missing, left over or misshapen."""
    shapes = {name: tuple(weight.shape) for name, weight in checkpoint.weights.items()}
    problems = {
        "missing": expected.keys() - shapes.keys(),
        "left over": shapes.keys() - expected.keys(),
        "of the wrong shape": {n for n in expected.keys() & shapes if shapes[n] != expected[n]},
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {listing(names)}" for what, names in problems.items() if names)
        raise CheckpointError(f"{checkpoint.where} does not fit its own sizes: {found}")


def _sizes(
    shapes: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint, num_heads: int | None
) -> Architecture:
    hints = checkpoint.hints
    num_convs = len({name.split(".")[1] for name in shapes if name.startswith("conv.")})
    num_layers = len({name.split(".")[1] for name in shapes if name.startswith("block.")})
    convs = [shapes[f"conv.{i}.weight"] for i in range(num_convs)]
    ffn_dim, dim = shapes["block.0.up.weight"]
    front_norm: Literal["group", "layer"] = (
        "layer" if num_convs > 1 and "conv.1.norm.weight" in shapes else "group"
    )
    strides = hints.strides or _STRIDES
    if len(strides) != num_convs:
        raise CheckpointError(
            f"{checkpoint.where} has {num_convs} convolutions, its configuration {len(strides)}"
        )
    heads = num_heads or hints.num_heads or max(1, dim // 64)
    if dim % heads:
        raise CheckpointError(f"{checkpoint.where}: width {dim} does not divide by {heads} heads")
    layer_norm_style = front_norm == "layer"
    return Architecture(
        dim=dim,
        ffn_dim=ffn_dim,
        num_layers=num_layers,
        num_heads=heads,
        pre_norm=layer_norm_style if hints.pre_norm is None else hints.pre_norm,
        normalize=layer_norm_style if hints.normalize is None else hints.normalize,
        front_norm=front_norm,
        channels=tuple(shape[0] for shape in convs),
        kernels=tuple(shape[2] for shape in convs),
        strides=strides,
        conv_bias="conv.0.bias" in shapes,
        projects="projection.weight" in shapes,
        position_kernel=shapes["position.weight"][2],
        position_groups=dim // shapes["position.weight"][1],
        position_norm="position.input.weight" in shapes,
        num_buckets=shapes["bias.weight"][0] if "bias.weight" in shapes else 0,
        max_distance=hints.max_distance or _MAX_DISTANCE,
        epsilon=hints.epsilon or _EPSILON,
    )


def expected_shapes(a: Architecture) -> dict[str, tuple[int, ...]]:
    """Return every weight that an encoder of these sizes has, under its canonical name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (channels, kernel) in enumerate(zip(a.channels, a.kernels, strict=True)):
        shapes[f"conv.{i}.weight"] = (channels, a.channels[i - 1] if i else 1, kernel)
        if a.conv_bias:
            shapes[f"conv.{i}.bias"] = (channels,)
        if a.front_norm == "layer" or i == 0:
            shapes |= _affine(f"conv.{i}.norm", channels)
    width = a.channels[-1]
    shapes |= _affine("projection.norm", width)
    if a.projects:
        shapes |= _linear("projection", width, a.dim)
    shapes["position.weight"] = (a.dim, a.dim // a.position_groups, a.position_kernel)
    shapes["position.bias"] = (a.dim,)
    if a.position_norm:
        shapes |= _affine("position.input", a.dim)
        shapes |= {f"position.input.running_{what}": (a.dim,) for what in ("mean", "var")}
    shapes |= block_shapes(a)
    if a.num_buckets:
        for i in range(a.num_layers):
            shapes |= _linear(f"block.{i}.gate", a.dim // a.num_heads, 8)
            shapes[f"block.{i}.gate.scale"] = (1, a.num_heads, 1, 1)
        shapes["bias.weight"] = (a.num_buckets, a.num_heads)
    return shapes


def block_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the weights of plain blocks, and of the norm that follows the last or precedes all."""
    dim, ffn_dim = sizes.dim, sizes.ffn_dim
    shapes = _affine("norm", dim)
    for i in range(sizes.num_layers):
        for part in ("q", "k", "v", "out"):
            shapes |= _linear(f"block.{i}.{part}", dim, dim)
        shapes |= _affine(f"block.{i}.norm1", dim) | _affine(f"block.{i}.norm2", dim)
        shapes |= _linear(f"block.{i}.up", dim, ffn_dim)
        shapes |= _linear(f"block.{i}.down", ffn_dim, dim)
    return shapes


def _affine(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _linear(name: str, dim_in: int, dim_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (dim_out, dim_in), f"{name}.bias": (dim_out,)}


def weights_of(checkpoint: Checkpoint, part: str) -> dict[str, Tensor]:
    """Return the weights whose names start with ``part.``, without it."""
    start = f"{part}."
    weights = checkpoint.weights
    return {name.removeprefix(start): weights[name] for name in weights if name.startswith(start)}
