"""OPT, the decoder VoxtLM starts from (Zhang et al. 2022, arXiv 2205.01068; 2309.07937).

Learned positions, two rows off, LayerNorm, ReLU and biases. The sizes 125m and 1.3b have the norm
before each sub-layer and one at the end; 350m has it after each sub-layer, none at the end, and
word embeddings of 512 between two bias-free projections. An `OptModel` is used like a
`LanguageModel` of plain tokens: positions come with the batch, so packed rows and left padding
work.

Axes: B rows, L positions, D model width, E width of the word embeddings, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unitone.errors import ConfigError
from unitone.lm.decoder.model import Decoder, Vectors
from unitone.nn.transformer import Cache, TransformerConfig, attend, packed_mask

OFFSET = 2
"""Position p is row p + 2 of the table (a heritage of fairseq's padding index)."""


@dataclass(frozen=True, kw_only=True)
class OptConfig:
    transformer: TransformerConfig
    """Sizes; every query head has keys of its own, and there is no rotation."""
    vocab_size: int
    """Tokens; the tables have a multiple of 64 rows, so that matrix units are full."""
    context: int = 2048
    """Positions there are; a sequence can't be longer."""
    embed_dim: int
    """Width E of the word embeddings; where it isn't the model's, projections stand between."""
    pre_norm: bool = True
    """Whether norms stand before attention and feed-forward, or after (350m)."""
    tied: bool = True
    """The output matrix is the embedding table (VoxtLM: it is not)."""

    def __post_init__(self) -> None:
        if self.transformer.heads != self.transformer.kv_heads:
            raise ConfigError("OPT has no grouped-query attention: kv_heads must equal heads")
        for name in ("head_width", "rope_scaling"):
            if getattr(self.transformer, name) is not None:
                raise ConfigError(f"OPT has no {name}: leave it out")

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return -(-self.vocab_size // 64) * 64

    @property
    def projected(self) -> bool:
        """Whether projections stand between word embeddings and the blocks."""
        return self.embed_dim != self.transformer.dim


class OptBlock(nn.Module):
    """Attention and feed-forward, each added to the residual stream and normed."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        shape = config.transformer
        self.pre_norm, self.head_dim = config.pre_norm, shape.head_dim
        self.attention_norm = nn.LayerNorm(shape.dim, eps=shape.norm_eps)
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim)
        self.out = nn.Linear(shape.dim, shape.dim)
        self.feed_forward_norm = nn.LayerNorm(shape.dim, eps=shape.norm_eps)
        self.up = nn.Linear(shape.dim, shape.ffn)
        self.down = nn.Linear(shape.ffn, shape.dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        mask: Bool[Tensor, "B 1 L S"] | None,
        cache: Cache | None,
        layer: int,
    ) -> Float[Tensor, "B L D"]:
        """Return the residual stream after this block."""
        given = self.attention_norm(x) if self.pre_norm else x
        x = x + self.dropout(self._attention(given, mask, cache, layer))
        x = x if self.pre_norm else self.attention_norm(x)
        given = self.feed_forward_norm(x) if self.pre_norm else x
        x = x + self.dropout(self.down(F.relu(self.up(given))))
        return x if self.pre_norm else self.feed_forward_norm(x)

    def _attention(self, x: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, -1, self.head_dim)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        mixed = attend(query, key, value, mask=mask, causal=mask is None)
        joined: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return joined


class OptModel(Decoder):
    """Tokens in, the last layer's states out; ``head`` turns states into logits."""

    def __init__(self, config: OptConfig, *, generator: torch.Generator | None = None) -> None:
        """Build the model; with ``generator`` its weights are drawn from it alone."""
        super().__init__()
        self.config = config
        dim, width = config.transformer.dim, config.embed_dim
        self.embedding = nn.Embedding(config.rows, width)
        self.positions = nn.Embedding(config.context + OFFSET, dim)
        self.project_in = nn.Linear(width, dim, bias=False) if config.projected else None
        self.layers = nn.ModuleList(OptBlock(config) for _ in range(config.transformer.layers))
        self.norm = nn.LayerNorm(dim, eps=config.transformer.norm_eps) if config.pre_norm else None
        self.project_out = nn.Linear(dim, width, bias=False) if config.projected else None
        self.output = None if config.tied else nn.Linear(width, config.rows, bias=False)
        if generator is not None:
            self.initialize(generator)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw normal weights, deviation 0.02; biases are zero, norms one."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks: units of sharding and of compilation."""
        return list(self.layers)

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        *,
        positions: Int[Tensor, "B L"] | None = None,
        segments: Int[Tensor, "B L"] | None = None,
        mask: Bool[Tensor, "B 1 L S"] | None = None,
        vectors: Mapping[str, Vectors] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B L E"]:
        """Return the states that predict the next token; arguments as of `LanguageModel`.

        Raises:
            ConfigError: there are vectors, which OPT does not take.
        """
        if positions is None:
            start = 0 if cache is None else cache.filled
            length = torch.arange(start, start + tokens.shape[1], device=tokens.device)
            positions = length.expand(tokens.shape[0], -1)
        if segments is not None:
            mask = packed_mask(segments)
        x = self.embed(tokens, vectors or {})
        x = x + self.positions(positions + OFFSET).to(x.dtype)
        for layer, block in enumerate(self.layers):
            if self.config.transformer.checkpoint_activations and self.training:
                x = checkpoint(block, x, mask, cache, layer, use_reentrant=False)
            else:
                x = block(x, mask, cache, layer)
        if cache is not None:
            cache.filled += tokens.shape[1]
        states: Tensor = x if self.norm is None else self.norm(x)
        return states if self.project_out is None else self.project_out(states)

    def embed(
        self, tokens: Int[Tensor, "B L"], vectors: Mapping[str, Vectors]
    ) -> Float[Tensor, "B L D"]:
        """Return the word embeddings as wide as the model, in the precision it will compute in."""
        for kind in vectors:
            raise ConfigError(f"an OPT model takes no {kind}: choose a task of units and text")
        x: Tensor = self.embedding(tokens)
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        return x if self.project_in is None else self.project_in(x)
