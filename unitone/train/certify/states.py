"""Checks of what is kept: resuming, the average of the weights, the mean of checkpoints."""

from typing import Any

import torch
from torch import Tensor

from unitone.train import checkpoint
from unitone.train.certify.setup import Finding, Run, SetUp, Watched, farthest

STOPPED_AFTER = 5
"""Step in which the stopped run is told to stop; between two checkpoints."""
CLOSE = 1e-4
"""Of two runs on a device that doesn't repeat itself to the bit."""


def resume(setup: SetUp) -> Finding:
    """A run that was stopped and goes on is the run that was not."""
    config, through = setup.with_ema, setup.averaged
    seen: list[str] = []
    stop_at = STOPPED_AFTER * config.accumulate
    first = Watched(setup.source(config.seed), seen, stop_at=stop_at)
    stopped = False
    try:
        setup.train("stopped", config, source=first, **setup.using())
    except KeyboardInterrupt:
        stopped = True
    again = setup.train("stopped", config, **setup.using())
    seen += again.batches
    whole = through.batches
    same = sum(a == b for a, b in zip(whole, seen, strict=False))
    losses = _apart(through, again)
    weights = max(
        farthest(tensors, again.saved()[kind]) for kind, tensors in through.saved().items()
    )
    bound = 0.0 if _exact(through) else CLOSE
    return Finding(
        what="a run that is stopped and goes on is the run that is not",
        figure=f"{config.steps} steps, stopped after {STOPPED_AFTER}: {same} of {len(whole)} "
        f"batches the same, losses differ by {losses:.3g}, weights and averages by "
        f"{weights[0]:.3g}",
        passed=stopped
        and same == len(whole) == len(seen)
        and losses <= bound
        and weights[0] <= bound,
        cure="something isn't in the checkpoint: the position in the data, a random state, the "
        "optimizer's or the average's",
    )


def _apart(one: Run, other: Run) -> float:
    curves = [[record["loss"] for record in _alone(run)] for run in (one, other)]
    if len(curves[0]) != len(curves[1]):
        return float("inf")
    return float(max(abs(a - b) for a, b in zip(*curves, strict=True)))


def _alone(run: Run) -> list[dict[str, Any]]:
    """Return the curve; of several networks, with the sum of their losses."""
    return [
        {"loss": sum(v for k, v in record.items() if k.rpartition("/")[2] == "loss")}
        for record in run.curve
    ]


def _exact(run: Run) -> bool:
    """Tell whether two runs on this device are the same to the bit."""
    return all(p.device.type == "cpu" for m in run.networks.values() for p in m.parameters())


def ema(setup: SetUp) -> Finding:
    """The average is of the trained weights, and averaging, validating and saving leave them."""
    plain, run = setup.plain, setup.averaged
    saved = run.saved()
    apart, last, outside, still = (0.0, ""), (0.0, ""), [], 0
    count = 0
    for network, module in run.networks.items():
        apart = max(apart, farthest(plain.saved()[network], saved[network]))
        averages = saved[f"{network}.ema"]
        file = run.out / "last" / f"{network}.safetensors"
        exported = checkpoint.load_tensors(file)
        names = dict(module.named_parameters())
        last = max(last, farthest(averages, {n: t for n, t in exported.items() if n in names}))
        for name, parameter in names.items():
            count += 1
            low, high = (bound[f"{network}.{name}"] for bound in (run.lowest, run.highest))
            if name not in averages or not _between(low, averages[name], high):
                outside.append(f"{network}.{name}")
            elif parameter.requires_grad and torch.equal(averages[name], saved[network][name]):
                still += not torch.equal(low, high)
    bound = 0.0 if _exact(run) else CLOSE
    return Finding(
        what="the average holds every weight, and validating and saving it leave training as it is",
        figure=f"trained with and without: weights differ by {apart[0]:.3g}"
        + (f" ({apart[1]})" if apart[0] else "")
        + f"; {count - len(outside)} of {count} averages lie within what the weight has been, "
        f"{still} are the last weight itself; saved ones differ by {last[0]:.3g}",
        passed=apart[0] <= bound and last[0] == 0 and not outside and not still,
        cure="weights are swapped in and not back, or the average leaves some of them out",
    )


def _between(low: Tensor, value: Tensor, high: Tensor) -> bool:
    slack = 1e-6 * (1 + value.abs())
    return bool(((value >= low - slack) & (value <= high + slack)).all())


def average(setup: SetUp) -> Finding:
    """The mean of checkpoints is the mean of each trained weight, and goes back into a network."""
    run = setup.plain
    folders = checkpoint.found(run.out / "checkpoints")
    worst, count, missing = 0.0, 0, 0
    for network, module in setup.networks().items():
        mean = checkpoint.average(folders, network)
        checkpoint.load_weights(module, mean, where="the mean")
        files = [checkpoint.load_tensors(f / f"{network}.safetensors") for f in folders]
        for name, parameter in module.named_parameters():
            count += 1
            missing += name not in mean
            own = torch.stack([tensors[name].double() for tensors in files]).mean(0)
            worst = max(worst, float((parameter.detach().cpu().double() - own).abs().max()))
    return Finding(
        what="the mean of checkpoints is that of every weight, and loads",
        figure=f"{count - missing} of {count} weights of {len(folders)} checkpoints, off by "
        f"{worst:.3g}",
        passed=worst <= 1e-6 and not missing and len(folders) > 1,
        cure="what checkpoints hold, and under which names",
    )
