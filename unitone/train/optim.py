"""Optimizers of the trainer: AdamW, Muon, gradient clipping, and an average of the weights (EMA).

Muon (Jordan et al. 2024) replaces the momentum of a hidden matrix by the nearest orthogonal one,
with five Newton-Schulz steps. We scale it by 0.2 sqrt(max(rows, columns)) (Liu et al. 2025,
arXiv 2502.16982, section 2.2), which gives its updates the root mean square of AdamW's, so one
learning rate and one weight decay serve both. Embeddings, heads, convolutions and vectors have
AdamW. `torch.optim.Muon` (torch 2.9) always works in bfloat16: after 50 steps of lm-tiny in float32
its loss is 2.2991 where ours is 2.2971; with bfloat16 both give the same curve at the same speed.

Axes: M matrices of one shape, R rows, C columns.
"""

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitone.train.config import OptimizerName

ADAM_EPSILON = 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5; Jordan et al. chose them for a steep start at 0."""
NEWTON_SCHULZ_STEPS = 5
RMS_OF_ADAMW = 0.2
"""Typical root mean square of an AdamW update, as Liu et al. measured it."""


def build(
    network: nn.Module,
    *,
    blocks: Sequence[nn.Module] = (),
    name: OptimizerName,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    muon_dtype: torch.dtype = torch.float32,
) -> list[torch.optim.Optimizer]:
    """Return the optimizers that together train every trainable parameter of ``network``.

    Muon has the matrices inside ``blocks``, AdamW the rest.
    Vectors (norms, biases) have no weight decay.

    Args:
        network: the module.
        blocks: its hidden layers.
        name: ``adamw``, or ``muon`` for the hidden matrices.
        lr: peak learning rate; the trainer changes ``group["lr"]``.
        betas: of AdamW; Muon's momentum is 0.95.
        weight_decay: decoupled.
        muon_dtype: of the Newton-Schulz steps; bfloat16 is enough where it is fast.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    hidden = hidden_matrices(blocks) if name == "muon" else []
    by_muon = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in trained if id(parameter) not in by_muon]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(Muon(hidden, lr=lr, weight_decay=weight_decay, dtype=muon_dtype))
    if groups:
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
        optimizers.append(
            torch.optim.AdamW(groups, lr=lr, betas=betas, eps=ADAM_EPSILON, fused=fused)
        )
    return optimizers


def hidden_matrices(blocks: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Return the trainable matrices of ``blocks``, without their embeddings."""
    found: dict[int, nn.Parameter] = {}
    for block in blocks:
        for module in block.modules():
            if not isinstance(module, nn.Embedding):
                found |= {
                    id(parameter): parameter
                    for parameter in module.parameters(recurse=False)
                    if parameter.ndim == 2 and parameter.requires_grad
                }
    return list(found.values())


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, for matrices; Nesterov's form."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient; matrices of one shape go together."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        beta = group["momentum"]
        directions = []
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].lerp_(gradient, 1 - beta)
            directions.append(whole(gradient.lerp(state["momentum"], beta)))
        orthogonal = newton_schulz(torch.stack(directions), dtype=self._dtype)
        scale = RMS_OF_ADAMW * math.sqrt(max(orthogonal.shape[1:]))
        for parameter, update in zip(parameters, orthogonal.to(parameters[0].dtype), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(shared_like(update, parameter), alpha=-group["lr"] * scale)


def newton_schulz(
    matrices: Float[Tensor, "M R C"], *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "M R C"]:
    """Return nearly orthogonal matrices: X = U S V^T becomes U S' V^T with S' about 0.7..1.2.

    Each step is X <- a X + (b A + c A A) X with A = X X^T, on the side with the fewer rows. The
    result has the given dtype.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(dtype)
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # singular values are now at most 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def scale_and_clip(
    parameters: Sequence[nn.Parameter], *, scale: Tensor, max_norm: float | None
) -> Tensor:
    """Multiply the gradients by ``scale``, shorten them to ``max_norm``; return the norm before.

    One pass to measure and one to multiply, without waiting for the device.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros((), device=scale.device)
    norm = whole(nn.utils.get_total_norm(gradients)) * scale
    if max_norm is not None:
        scale = scale * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    shards = [local(gradient) for gradient in gradients]
    torch._foreach_mul_(shards, scale)  # pyright: ignore[reportPrivateImportUsage]
    return norm


class Ema:
    """An exponential moving average of a module's parameters, in their dtype.

    The decay starts low, min(decay, (1 + n) / (10 + n)) after n updates, so that the initial
    weights are forgotten in a short run too.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        """How many there were; the checkpoint keeps it."""
        self._live = dict(module.named_parameters())
        self.averages = {name: p.detach().clone() for name, p in self._live.items()}
        """By the name of the parameter."""

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, live = self._both()
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            averages, live, 1 - decay
        )

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages in the place of the parameters, for evaluation or saving."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, live in zip(*self._both(), strict=True):
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)

    def _both(self) -> tuple[list[Tensor], list[Tensor]]:
        live = [local(parameter.detach()) for parameter in self._live.values()]
        return [local(average) for average in self.averages.values()], live


def sharded(tensor: Tensor) -> Any:
    """Return ``tensor`` where it is a DTensor of FSDP2, else None.

    Importing torch.distributed.tensor takes seconds; whatever makes a DTensor has done it.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that FSDP2 keeps in shards as one; every process must call this."""
    found = sharded(tensor)
    return tensor if found is None else found.full_tensor()


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard, or the tensor itself where it isn't sharded."""
    found = sharded(tensor)
    return tensor if found is None else found.to_local()


def shared_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Cut a whole ``tensor``, the same on every process, as FSDP2 cut ``parameter``."""
    found = sharded(parameter)
    if found is None:
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = found.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=found.placements)
