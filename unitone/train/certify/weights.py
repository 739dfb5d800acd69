"""Checks of the weights: all that should be trained is, decay and precision are as they say."""

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from unitone.train.certify.setup import Finding, SetUp
from unitone.train.network import own_optimization

DECAY = 0.1
"""Weight decay of the check, where the set-up has less."""
ALMOST_ALL = 0.9
"""Share of the multiplications that is in bfloat16 where the flag says so."""


def gradients(setup: SetUp) -> Finding:
    """Every trained weight gets a gradient and moves; frozen ones don't."""
    run = setup.plain
    parameters = {
        f"{network}.{name}": parameter
        for network, module in run.networks.items()
        for name, parameter in module.named_parameters()
    }
    moved = {name for name in parameters if not torch.equal(run.lowest[name], run.highest[name])}
    moved |= {
        name
        for name, parameter in parameters.items()
        if not torch.equal(parameter.detach().cpu(), run.lowest[name])
    }
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    frozen = parameters.keys() - trained
    idle = sorted((trained - run.reached) | (trained - moved)) + sorted(frozen & moved)
    return Finding(
        what="every trained weight gets a gradient and moves, frozen ones don't",
        figure=f"{len(trained & run.reached)} of {len(trained)} weights got a gradient, "
        f"{len(trained & moved)} moved; {len(frozen & moved)} of {len(frozen)} frozen ones moved"
        + (f": {_some(idle)}" if idle else ""),
        passed=not idle and bool(trained),
        cure="a part of the network that no task or option of this set-up uses, or one that the "
        "loss doesn't reach (detach, no_grad); leave it out or freeze it",
    )


def decay(setup: SetUp) -> Finding:
    """Vectors (norms, biases) have no weight decay, matrices have.

    In a step with gradients of zero, so that nothing else moves a weight: not even another network,
    whose own decay this one's gradients would see.
    """
    strength = max(setup.config.weight_decay, DECAY)
    config = replace(setup.config, ema=None, steps=1, weight_decay=strength)
    start = setup.networks()
    hook = register_optimizer_step_pre_hook(_forget)
    try:
        run = setup.train("decay", config)
    finally:
        hook.remove()
    moved: dict[str, float] = {}
    shapes: dict[str, int] = {}
    for network, module in run.networks.items():
        before = dict(start[network].named_parameters())
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and own_optimization(module) is None:
                difference = (parameter.detach().cpu() - before[name].detach().cpu()).abs().max()
                moved[f"{network}.{name}"] = float(difference)
                shapes[f"{network}.{name}"] = parameter.ndim
    vectors = {name: by for name, by in moved.items() if shapes[name] < 2}
    matrices = {name: by for name, by in moved.items() if shapes[name] >= 2}
    decayed = sorted(name for name, by in vectors.items() if by)
    spared = sorted(name for name, by in matrices.items() if not by and _filled(start, name))
    return Finding(
        what="weight decay takes from matrices, not from norms and biases",
        figure=f"a step with {strength:g} and no gradients moves {len(decayed)} of {len(vectors)} "
        f"vectors and {len(matrices) - len(spared)} of {len(matrices)} matrices"
        + (f": {_some(decayed + spared)}" if decayed or spared else ""),
        passed=not decayed and not spared if moved else None,
        cure="the groups of parameters that the optimizers are built with",
    )


def _forget(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()


def _filled(networks: Any, name: str) -> bool:
    """Tell whether a weight isn't zero, where decay has nothing to take."""
    network, _, name = name.partition(".")
    return bool(networks[network].get_parameter(name).detach().ne(0).any())


def precision(setup: SetUp) -> Finding:
    """Matrix products are computed in what ``--precision`` says, weights kept in float32."""
    config = replace(setup.config, ema=None, steps=1)
    with _Products() as products:
        run = setup.train("precision", config)
    work = sum(products.work.values())
    share = products.work[torch.bfloat16] / max(work, 1)
    single = products.work[torch.float32] / max(work, 1)
    kept = {_spell(p.dtype) for module in run.networks.values() for p in module.parameters()}
    right = share >= ALMOST_ALL if config.precision == "bf16" else single == 1
    return Finding(
        what=f"the precision is what the flag says, {config.precision}",
        figure=f"{share:.1%} of {work / 1e6:.3g} M multiplications in bfloat16, {single:.1%} in "
        f"float32; weights in {', '.join(sorted(kept))}",
        passed=right and kept == {"float32"} if work else None,
        cure="something casts inside the network, or computes outside of autocast",
    )


class _Products(TorchDispatchMode):
    """Counts the multiplications of matrix products by the precision they are done in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(getattr(func, "overloadpacket", None))
        if count is not None:
            first = out[0] if isinstance(out, tuple) else out
            if isinstance(first, Tensor):
                self.work[first.dtype] += count(*args, **kwargs, out_val=out) // 2
        return out


def _spell(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def hold(module: nn.Module) -> None:
    """Switch off what makes a loss random or dependent on the batch: dropout, batch statistics.

    The network is in training mode otherwise; batch norms use their running statistics.
    """
    random = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    for part in module.modules():
        if isinstance(part, random):
            part.register_forward_pre_hook(_at_rest)


def without_dropout(module: nn.Module) -> None:
    """Switch off dropout; batch norms take the batch's statistics, as in training."""
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.register_forward_pre_hook(_at_rest)


def _at_rest(module: nn.Module, inputs: Any) -> None:
    module.eval()
