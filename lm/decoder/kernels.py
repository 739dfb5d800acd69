"""Fast generation on a CPU, by two names: `prepare` a model, and `head`, the logits of some tokens.

The product of a matrix with the few rows of a decoding step is bound by how the matrix lies in
memory. oneDNN reads it in blocks of its own; a matrix that is brought into that order once is
multiplied two to three times as fast, in fp32 and in bf16. In int8 there is a quarter to read
(`unitone.nn.int8`).

A step is a few rows through many small operations, so that each call counts, and what is not a
matrix product should not cost as much as one. Query and key are laid out so that a rotary pair lies
side by side; one complex product turns them (Su et al. 2021, arXiv 2104.09864, section 3.2.2) and
leaves the values as they are. What a block adds is added by the product itself.

Axes: B rows, L positions, S slots of the cache, D model width, H query heads, G key and value
heads, K width of a head.
"""

import functools
import math
from typing import TypeGuard, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.errors import ConfigError
from unitone.lm.decoder.model import LanguageModel
from unitone.lm.interop.opt import OptModel
from unitone.nn.int8 import Int8Matrix, has_int8
from unitone.nn.linear import multiply, pack
from unitone.nn.transformer import (
    Attention,
    Block,
    Cache,
    RMSNorm,
    Stored,
    Transformer,
    attend,
)
from unitone.processor import cpuinfo

Model = LanguageModel | OptModel
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class PackedMatrix:
    """y = x W^T, in the order of the processor; y has the type of W and x."""

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        weight = weight.detach()
        packed = pack(weight)
        assert packed is not None, "`fits` was not asked"
        self._packed = packed
        self._plain = weight if plain_is_faster(weight.dtype) else None

    def __call__(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Return x W^T."""
        return multiply(x, self._packed)

    def add(self, x: Float[Tensor, "*N I"], to: Float[Tensor, "*N O"]) -> Float[Tensor, "*N O"]:
        """Return ``to`` + x W^T."""
        added: Tensor = _sum(x, to, self._packed, None, "add")
        return added

    def row(self, x: Float[Tensor, "1 I"]) -> Float[Tensor, "1 O"]:
        """Return x W^T of a single row."""
        return self(x) if self._plain is None else torch.mv(self._plain, x.view(-1)).view(1, -1)

    def add_row(self, x: Float[Tensor, "1 I"], to: Float[Tensor, "1 O"]) -> Float[Tensor, "1 O"]:
        """Return ``to`` + x W^T."""
        if self._plain is None:
            return self.add(x, to)
        return torch.addmv(to.view(-1), self._plain, x.view(-1)).view(1, -1)


@functools.cache
def plain_is_faster(dtype: torch.dtype) -> bool:
    """Say whether a single row is multiplied faster by the matrix as it lies.

    So it is in fp32 by MKL on Intel's processors, at the rate at which the matrix can be read;
    oneDNN takes 1.3 to 2 times as long there. On AMD's, MKL uses half the width of a vector.
    """
    intel = cpuinfo("vendor_id") == "GenuineIntel"
    return dtype == torch.float32 and intel and torch.backends.mkl.is_available()


class PackedLinear(nn.Module):
    """A linear layer that computes and does not learn; it shares the weight it was made from."""

    def __init__(
        self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None, *, int8: bool = False
    ) -> None:
        """Bring the matrix into the order of the processor, where that is possible."""
        super().__init__()
        self.weight, self.bias = weight, bias
        self._int8 = Int8Matrix(weight) if int8 else None
        self._packed = None if int8 else pack(weight)
        self._plain = plain_is_faster(weight.dtype)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Return x W^T + b."""
        if self._int8 is not None:
            product = self._int8(x)
            return product if self.bias is None else product.add_(self.bias)
        if self._packed is None or (self._plain and x.numel() == x.shape[-1]):
            return F.linear(x, self.weight, self.bias)
        return multiply(x, self._packed, self.bias)


def prepare(model: Model, *, int8: bool = False) -> Model:
    """Return a copy of ``model`` for `generate`; it is a snapshot, but shares what isn't packed.

    Generating with one copy again and again saves the packing, 20 ms for 29M weights. While it is
    there, the packed matrices take as much memory as the model's own, in int8 a quarter.

    Raises:
        ConfigError: ``int8`` of a model that isn't fp32 on a CPU, or of a PyTorch without it.
    """
    if is_prepared(model):
        return model
    if int8:
        _require_int8(model)
    with torch.no_grad():
        copied = _copy(model, int8=int8).eval()
    copied.__dict__ |= {"int8": int8, "heads": {}}
    return copied


def _require_int8(model: Model) -> None:
    weight = model.embedding.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ConfigError(
            f"int8 is for models in fp32 on a CPU, this one is {weight.dtype} on {weight.device}: "
            "use --device cpu, or another --precision"
        )
    if not has_int8():
        raise ConfigError("int8: this PyTorch has no oneDNN int8 products; use --precision fp32")


def is_prepared(model: nn.Module) -> bool:
    """Tell whether `prepare` made this model."""
    return "int8" in model.__dict__


def head(model: Model, tokens: Int[Tensor, "A"]) -> PackedLinear:
    """Return what makes the logits of some tokens out of a prepared model's last states.

    The model keeps it: a task's tokens are the same in every batch.
    """
    kept: dict[bytes, PackedLinear] = model.__dict__["heads"]
    key = tokens.cpu().numpy().tobytes()
    if key not in kept:
        weight = model.embedding.weight if model.output is None else model.output.weight
        kept[key] = PackedLinear(weight.detach()[tokens], None, int8=model.__dict__["int8"])
    return kept[key]


def _copy(module: AnyModule, *, int8: bool) -> AnyModule:
    """Copy the tree of modules, not the weights."""
    made = object.__new__(type(module))  # copy.copy refuses what FSDP has wrapped
    made.__dict__ |= module.__dict__ | {"_modules": {}}
    for name, child in module._modules.items():
        if fits(child):
            made._modules[name] = FusedTransformer(child, int8=int8)
        elif isinstance(child, nn.Linear):
            made._modules[name] = PackedLinear(child.weight.detach(), child.bias, int8=int8)
        else:
            made._modules[name] = None if child is None else _copy(child, int8=int8)
    return made


class FusedTransformer(nn.Module):
    """Stands for a `Transformer` that doesn't learn; a snapshot of its weights."""

    def __init__(self, transformer: Transformer, *, int8: bool = False) -> None:
        """Lay the weights out; `fits` must be true of ``transformer``."""
        super().__init__()
        matrix = Int8Matrix if int8 else PackedMatrix
        self._angles = transformer.angles
        self._blocks = [_Block(cast(Block, block), matrix) for block in transformer.blocks]
        self._norm = _Norm(transformer.norm)
        self._values = transformer.config.kv_heads
        self._heads = transformer.config.heads + self._values
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
        stored = None if cache is None else cache.reserve(x.shape[1])
        if stored is not None and x.shape[:2] == (1, 1) and x.dtype == torch.float32:
            x = self._row(x[0], turn, mask, stored)[None]
        else:
            for layer, block in enumerate(self._blocks):
                kept = None if stored is None else stored[layer]
                x = block.run(x, turn, mask, kept, causal=causal)
        if cache is not None:
            cache.filled += x.shape[1]
        return self._norm(x)

    def _row(
        self, x: Float[Tensor, "1 D"], turn: Tensor, mask: Tensor | None, stored: list[Stored]
    ) -> Float[Tensor, "1 D"]:
        """Return the residual stream of a single position of a single row."""
        turn = turn.view(1, -1)
        turned = torch.empty_like(turn)
        heads = turned.view(torch.float32).view(1, self._heads + self._values, 1, -1)
        queries = self._heads - self._values
        views = turned, heads[:, :queries], heads[:, queries:]
        for block, kept in zip(self._blocks, stored, strict=True):
            x = block.row(x, turn, views, mask, kept)
        return x

    def _factors(self, count: int) -> Tensor:
        """Return exp(i angle) of positions 0 to ``count`` for query and key, and 1 for the value.

        (count, H + 2 G, K/2).
        """
        cos, sin = self._angles(torch.arange(count)[None], torch.float32)
        half = cos.shape[-1] // 2
        turns = torch.complex(cos[0, ..., :half], sin[0, ..., half:])
        values = torch.ones_like(turns).expand(-1, self._values, -1)
        return torch.cat((turns.expand(-1, self._heads, -1), values), dim=1)


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
        self._floor = math.sqrt(width * (norm.eps or 0.0))
        self._least = torch.tensor(self._floor)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return x.div(torch.hypot(length, self._least)).mul_(self._weight).to(x.dtype)

    def row(self, x: Float[Tensor, "1 D"]) -> Float[Tensor, "1 D"]:
        """Return the same of a single row."""
        length = math.hypot(float(torch.linalg.vector_norm(x)), self._floor)
        return torch.mul(x, self._weight).mul_(1 / length)


class _Block:
    """A block's matrices, packed."""

    def __init__(self, block: Block, matrix: type[PackedMatrix] | type[Int8Matrix]) -> None:
        attention = block.attention
        self._heads, self._groups = attention.heads, attention.kv_heads
        self._width = attention.head_dim
        self._before, self._between = _Norm(block.attention_norm), _Norm(block.feed_forward_norm)
        self._qkv, self._out = matrix(_paired(attention)), matrix(attention.out.weight)
        self._gate_up = matrix(block.feed_forward.gate_up.weight)
        self._down = matrix(block.feed_forward.down.weight)

    def run(
        self, x: Tensor, turn: Tensor, mask: Tensor | None, stored: Stored | None, *, causal: bool
    ) -> Tensor:
        """Return the residual stream after this block."""
        rows, length, _ = x.shape
        qkv = self._qkv(self._before(x)).float()
        pairs = torch.view_as_complex(qkv.view(rows, length, -1, self._width // 2, 2))
        turned = torch.view_as_real(pairs * turn).view(rows, length, -1, self._width)
        turned = turned.transpose(1, 2)
        query, both = turned[:, : self._heads], turned[:, self._heads :]
        if stored is None:
            key, value = both.chunk(2, dim=1)
        else:
            new, key, value = stored
            new.copy_(both)
        mixed = attend(query, key, value, mask=mask, causal=causal)
        mixed = mixed.transpose(1, 2).reshape(rows, length, -1).to(x.dtype)
        x = self._out.add(mixed, x)
        gate, up = self._gate_up(self._between(x)).chunk(2, -1)
        return self._down.add(F.silu(gate).mul_(up), x)

    def row(
        self,
        x: Float[Tensor, "1 D"],
        turn: Tensor,
        views: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        stored: Stored,
    ) -> Float[Tensor, "1 D"]:
        """Return what `run` does of a single position of a single row.

        Half the calls: lengths are numbers, and what all blocks share is made once: ``views``, room
        for query, key and value turned, as complex numbers, and of them the query and the rest.
        """
        turned, query, both = views
        new, key, value = stored
        qkv = self._qkv.row(self._before.row(x))
        torch.mul(qkv.view(torch.complex64), turn, out=turned)
        new.copy_(both)
        mixed = F.scaled_dot_product_attention(
            query, key, value, mask, enable_gqa=self._heads != self._groups
        )
        x = self._out.add_row(mixed.view(1, -1), x)
        gate, up = self._gate_up.row(self._between.row(x)).chunk(2, 1)
        return self._down.add_row(F.silu(gate).mul_(up), x)


def _paired(attention: Attention) -> Tensor:
    """Return the rows of query, key and value; in query and key those of a rotary pair adjoin."""
    turned = (attention.heads + attention.kv_heads) * attention.head_dim
    weight = attention.qkv.weight.detach()
    pairs = weight[:turned].view(-1, 2, attention.head_dim // 2, weight.shape[1])
    return torch.cat((pairs.transpose(1, 2).reshape(turned, -1), weight[turned:]))


if torch.backends.mkldnn.is_available():  # a PyTorch without oneDNN has no such operation
    _sum = torch.ops.mkldnn._linear_pointwise.binary
