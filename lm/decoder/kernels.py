"""Fast generation on a CPU, by two names: `prepare` a model, and `PackedLinear`, its head.

The product of a matrix with the few rows of a decoding step is bound by how the matrix lies in
memory. oneDNN reads it in blocks of its own; a matrix that is brought into that order once is
multiplied two to three times as fast, in fp32 and in bf16.

A step is a few rows through many small operations, so that each call counts, and what is not a
matrix product should not cost as much as one. Query and key are laid out so that a rotary pair lies
side by side and is turned by one complex product (Su et al. 2021, arXiv 2104.09864, section
3.2.2); what a block adds is added by the product itself.

Axes: B rows, L positions, S slots of the cache, D model width, H query heads, G key and value
heads, K width of a head.
"""

import math
from typing import TypeGuard, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.lm.decoder.model import LanguageModel
from unitone.lm.interop.opt import OptModel
from unitone.nn.linear import multiply, pack
from unitone.nn.transformer import Attention, Block, Cache, RMSNorm, Transformer, attend

Model = LanguageModel | OptModel
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class PackedLinear(nn.Module):
    """A linear layer that computes and does not learn; it shares the weight it was made from."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None) -> None:
        """Bring the matrix into the order of the processor, where that is possible."""
        super().__init__()
        self.weight, self.bias = weight, bias
        self._packed = pack(weight)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Return x W^T + b."""
        if self._packed is None:
            return F.linear(x, self.weight, self.bias)
        return multiply(x, self._packed, self.bias)


def prepare(model: Model) -> Model:
    """Return a copy of ``model`` for `generate`; it is a snapshot, but shares what isn't packed.

    Generating with one copy again and again saves the packing, 20 ms for 29M weights. While it is
    there, the packed matrices take as much memory as the model's own.
    """
    if is_prepared(model):
        return model
    with torch.no_grad():
        return _copy(model).eval()


def is_prepared(model: nn.Module) -> bool:
    """Tell whether `prepare` made this model."""
    return any(isinstance(module, PackedLinear | FusedTransformer) for module in model.modules())


def _copy(module: AnyModule) -> AnyModule:
    """Copy the tree of modules, not the weights."""
    made = object.__new__(type(module))  # copy.copy refuses what FSDP has wrapped
    made.__dict__ |= module.__dict__ | {"_modules": {}}
    for name, child in module._modules.items():
        if fits(child):
            made._modules[name] = FusedTransformer(child)
        elif isinstance(child, nn.Linear):
            made._modules[name] = PackedLinear(child.weight.detach(), child.bias)
        else:
            made._modules[name] = None if child is None else _copy(child)
    return made


class FusedTransformer(nn.Module):
    """Stands for a `Transformer` that doesn't learn; a snapshot of its weights."""

    def __init__(self, transformer: Transformer) -> None:
        """Lay the weights out; `fits` must be true of ``transformer``."""
        super().__init__()
        self._angles = transformer.angles
        self._blocks = [_Block(cast(Block, block)) for block in transformer.blocks]
        self._norm = _Norm(transformer.norm)
        self._turns = torch.zeros(0)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        *,
        positions: Int[Tensor, "B L"],
        causal: bool,
        mask: Bool[Tensor, "B 1 L S"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Return what the plain transformer does."""
        end = x.shape[1] + (0 if cache is None else cache.filled)
        if end > len(self._turns):
            self._turns = self._factors(2 * end)
        turn = self._turns[positions]
        for layer, block in enumerate(self._blocks):
            x = block.run(x, turn, mask, cache, layer, causal=causal)
        if cache is not None:
            cache.filled += x.shape[1]
        return self._norm(x)

    def _factors(self, count: int) -> Tensor:
        """Return exp(i angle) of positions 0 to ``count``, (count, 1, K/2)."""
        cos, sin = self._angles(torch.arange(count)[None], torch.float32)
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, ..., :half], sin[0, ..., half:])


def fits(module: nn.Module | None) -> TypeGuard[Transformer]:
    """Tell whether it is a transformer that `FusedTransformer` can stand for."""
    if not isinstance(module, Transformer):
        return False
    weight = next(module.parameters())
    return pack(torch.zeros(16, 16, dtype=weight.dtype, device=weight.device)) is not None


class _Norm:
    """RMSNorm, x / |x| times sqrt(D) and the weight: three operations instead of seven."""

    def __init__(self, norm: RMSNorm) -> None:
        width = math.prod(norm.normalized_shape)
        self._weight = norm.weight.detach().float() * math.sqrt(width)
        self._least = torch.tensor(math.sqrt(width * (norm.eps or 0.0)))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return x.div(torch.hypot(length, self._least)).mul_(self._weight).to(x.dtype)


class _Block:
    """A block's matrices, packed."""

    def __init__(self, block: Block) -> None:
        attention = block.attention
        self._heads, self._groups = attention.heads, attention.kv_heads
        self._width = attention.head_dim
        self._before, self._between = _Norm(block.attention_norm), _Norm(block.feed_forward_norm)
        self._qkv, self._out = _packed(_paired(attention)), _packed(attention.out.weight)
        self._gate_up = _packed(block.feed_forward.gate_up.weight)
        self._down = _packed(block.feed_forward.down.weight)

    def run(
        self,
        x: Tensor,
        turn: Tensor,
        mask: Tensor | None,
        cache: Cache | None,
        layer: int,
        *,
        causal: bool,
    ) -> Tensor:
        """Return the residual stream after this block."""
        rows, length, _ = x.shape
        heads, turned = self._heads, self._heads + self._groups
        qkv = multiply(self._before(x), self._qkv).float()
        qkv = qkv.view(rows, length, turned + self._groups, self._width)
        pairs = torch.view_as_complex(qkv[:, :, :turned].unflatten(-1, (-1, 2)))
        both = torch.view_as_real(pairs * turn).flatten(-2).transpose(1, 2)
        query, key = both[:, :heads], both[:, heads:]
        value = qkv[:, :, turned:].transpose(1, 2)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        mixed = attend(query, key, value, mask=mask, causal=causal)
        mixed = mixed.transpose(1, 2).reshape(rows, length, -1).to(x.dtype)
        x = _sum(mixed, x, self._out, None, "add")
        gate, up = multiply(self._between(x), self._gate_up).chunk(2, -1)
        added: Tensor = _sum(F.silu(gate).mul_(up), x, self._down, None, "add")
        return added


def _paired(attention: Attention) -> Tensor:
    """Return the rows of query, key and value; in query and key those of a rotary pair adjoin."""
    turned = (attention.heads + attention.kv_heads) * attention.head_dim
    weight = attention.qkv.weight.detach()
    pairs = weight[:turned].view(-1, 2, attention.head_dim // 2, weight.shape[1])
    return torch.cat((pairs.transpose(1, 2).reshape(turned, -1), weight[turned:]))


def _packed(weight: Tensor) -> Tensor:
    packed = pack(weight.detach())
    assert packed is not None, "`fits` was not asked"
    return packed


if torch.backends.mkldnn.is_available():  # a PyTorch without oneDNN has no such operation
    _sum = torch.ops.mkldnn._linear_pointwise.binary
