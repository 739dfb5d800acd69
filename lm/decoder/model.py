"""The decoder-only language model over one merged vocabulary: text, units, codes and classes.

Speech enters as units (tokens like any other), as continuous vectors through a projection
(PolySpeech's semantic embeddings, arXiv 2406.07801), or as the codes of a codec, several streams a
position whose embeddings are summed (delay pattern, MusicGen, arXiv 2306.05284). Whatever comes in,
what goes out are logits over the vocabulary; codes of all levels come out of one head, because each
level has ids of its own.

Axes: B rows, L positions, Q streams of tokens a position, D model width, V vocabulary, N vectors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.lm.decoder.options import SIZES
from unitone.nn.transformer import Cache, Transformer, TransformerConfig, packed_mask

NONE = -1
"""No token: an unfilled cell of a stream, or a position without a target."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    transformer: TransformerConfig
    vocab_size: int
    """Tokens; the tables have a multiple of 64 rows, so that matrix units are full."""
    context: int = 2048
    """Longest sequence it is trained for, in positions."""
    tied: bool = True
    """The output matrix is the embedding table."""
    features: int = 0
    """Width of the continuous speech features that may stand at a position; 0 is none."""
    voice: int = 0
    """Width of the speaker embeddings that may stand at a position; 0 is none."""

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return -(-self.vocab_size // 64) * 64


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Continuous inputs of one kind: vector n stands at the n-th True position of ``where``."""

    values: Float[Tensor, "N _"]
    where: Bool[Tensor, "B L"]


def size(name: str, *, vocab_size: int, context: int = 2048, features: int = 0) -> ModelConfig:
    """Return the configuration called ``name``; the others are fields of `ModelConfig`.

    Raises:
        ConfigError: there is no size of this name.
    """
    if name not in SIZES:
        raise ConfigError(f"no model size {name!r}; there are {', '.join(SIZES)}")
    dim, layers, heads, kv_heads, ffn, tied = SIZES[name]
    shape = TransformerConfig(dim=dim, layers=layers, heads=heads, kv_heads=kv_heads, ffn=ffn)
    return ModelConfig(
        transformer=shape, vocab_size=vocab_size, context=context, tied=tied, features=features
    )


class Decoder(nn.Module):
    """What the decoder-only models share: an embedding table, a head, a cache."""

    config: Any
    """With ``vocab_size`` and ``transformer``."""
    embedding: nn.Embedding
    output: nn.Linear | None
    """None = the output matrix is the embedding table."""

    def head(
        self, states: Float[Tensor, "*N E"], tokens: slice | None = None
    ) -> Float[Tensor, "*N V"]:
        """Return the logits over the vocabulary, or some of it, padding rows left out."""
        weight = self.embedding.weight if self.output is None else self.output.weight
        if tokens is not None:
            return F.linear(states, weight[tokens])
        return F.linear(states, weight)[..., : self.config.vocab_size]

    def cache(self, *, rows: int, slots: int) -> Cache:
        """Return an empty cache in this model's precision and on its device."""
        weight = self.embedding.weight
        device = weight.device.type
        low = torch.is_autocast_enabled(device)
        return Cache(
            self.config.transformer,
            rows=rows,
            slots=slots,
            device=weight.device,
            dtype=torch.get_autocast_dtype(device) if low else weight.dtype,
        )

    @property
    def num_parameters(self) -> int:
        """Weights, the tied table once."""
        return sum(parameter.numel() for parameter in self.parameters())


class LanguageModel(Decoder):
    """Tokens and vectors in, the last layer's states out; ``head`` turns states into logits."""

    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        """Build the model; with ``generator`` its weights are drawn from it alone."""
        super().__init__()
        self.config = config
        dim = config.transformer.dim
        self.embedding = nn.Embedding(config.rows, dim)
        self.transformer = Transformer(config.transformer)
        self.output = None if config.tied else nn.Linear(dim, config.rows, bias=False)
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
                for name, width in (("features", config.features), ("voice", config.voice))
                if width
            }
        )
        if generator is not None:
            self.initialize(generator)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw normal weights, deviation 0.02, less for what adds to the residual stream (GPT-2).

        The small embedding starts the tied softmax near uniform.
        """
        layers = self.config.transformer.layers
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                if name.endswith(".bias"):  # torch draws it from the process's random state
                    parameter.zero_()
                continue
            residual = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            deviation = 0.02 / (2 * layers) ** 0.5 if residual else 0.02
            parameter.normal_(std=deviation, generator=generator)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks: units of sharding and of compilation."""
        return list(self.transformer.blocks)

    def forward(
        self,
        tokens: Int[Tensor, "B L"] | Int[Tensor, "B L Q"],
        *,
        positions: Int[Tensor, "B L"] | None = None,
        segments: Int[Tensor, "B L"] | None = None,
        mask: Bool[Tensor, "B 1 L S"] | None = None,
        vectors: Mapping[str, Vectors] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Return the states that predict the next token.

        Args:
            tokens: ids; `NONE` is no token.
            positions: place of each position in its own sequence; default 0, 1, … per row.
            segments: number of the sequence a position belongs to, where rows hold several.
            mask: who may look at whom, where neither causal nor ``segments`` says it.
            vectors: continuous inputs by kind, ``features`` or ``voice``.
            cache: earlier positions; those given now are added.
        """
        if positions is None:
            start = 0 if cache is None else cache.filled
            length = torch.arange(start, start + tokens.shape[1], device=tokens.device)
            positions = length.expand(tokens.shape[0], -1)
        if segments is not None:
            mask = packed_mask(segments)
        x = self.embed(tokens, vectors or {})
        states: Tensor = self.transformer(
            x, positions=positions, causal=mask is None, mask=mask, cache=cache
        )
        return states

    def embed(
        self,
        tokens: Int[Tensor, "B L"] | Int[Tensor, "B L Q"],
        vectors: Mapping[str, Vectors],
    ) -> Float[Tensor, "B L D"]:
        """Return the inputs of the first block, in the precision it will compute in."""
        x: Tensor
        if tokens.ndim == 3:
            found = self.embedding(tokens.clamp(min=0)) * (tokens != NONE)[..., None]
            x = found.sum(dim=2)
        else:
            x = self.embedding(tokens)
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        for kind, given in vectors.items():
            if kind not in self.projections:
                raise ConfigError(f"this model takes no {kind}; its config has {kind} = 0")
            projected = self.projections[kind](given.values)
            x = x.masked_scatter(given.where[..., None], projected.to(x.dtype))
        if self.training:  # FSDP exchanges gradients of every weight, of unused ones too
            for kind, projection in self.projections.items():
                if kind not in vectors:
                    unused = sum(weight.sum() for weight in projection.parameters())
                    x = x + 0 * torch.as_tensor(unused).to(x.dtype)
        return x
