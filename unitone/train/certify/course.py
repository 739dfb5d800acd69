"""Checks of the course of a run: order of the data, learning rates, validation."""

import itertools
import pickle
from dataclasses import replace

import torch
from torch import nn

from unitone import seeding
from unitone.train.certify.setup import Finding, SetUp, Trained, digest
from unitone.train.loading import BatchSource, Position, batches

BATCHES = 8
"""Batches whose order is compared."""
PER_STEP = 2
WORKERS = 2


def order(setup: SetUp) -> Finding:
    """What is trained on is a function of the seed and the step, however it is loaded."""
    seed = setup.config.seed
    here = _first(setup.source(seed))
    known = [one for one, _ in here]
    copy: BatchSource = pickle.loads(pickle.dumps(setup.source(seed)))
    middle = here[BATCHES // 2 - 1][1]
    ways = {
        "again": [one for one, _ in _first(copy)] == known,
        "from the middle": [one for one, _ in _first(copy, start=middle, count=BATCHES // 2)]
        == known[BATCHES // 2 :],
        "by two processes": _by_two(copy) == known,
        f"by {WORKERS} workers": [one for one, _ in _first(copy, workers=WORKERS)] == known,
    }
    others = [one for one, _ in _first(setup.source(seed + 1))]
    window = [one for one, _ in _first(copy, start=Position(window=1))]
    fresh = len({*known})
    wrong = [way for way, same in ways.items() if not same]
    if others == known:
        wrong.append("another seed changes nothing")
    if window == known:
        wrong.append("the second window is the first again")
    if fresh == 1:
        wrong.append("every batch is the same")
    return Finding(
        what="the order of the data is a function of (seed, step)",
        figure=f"{BATCHES} batches ({fresh} different ones), loaded {', '.join(ways)}: "
        f"{sum(ways.values())} of {len(ways)} ways give them; another seed shares "
        f"{len({*known} & {*others})}" + (f"; wrong: {', '.join(wrong)}" if wrong else ""),
        passed=not wrong,
        cure="draw from a stream named by the seed and the example (unitone.seeding), never from a "
        "process's own random state",
    )


def _first(
    source: BatchSource, *, start: Position | None = None, count: int = BATCHES, workers: int = 0
) -> list[tuple[str, Position]]:
    stream = batches(source, start=start or Position(), per_step=PER_STEP, workers=workers)
    try:
        found = [(digest(batch), after) for batch, after in itertools.islice(stream, count)]
    finally:
        stream.close()
    return found


def _by_two(source: BatchSource) -> list[str]:
    """Return the batches of two processes, in turn."""
    shares = []
    for rank in range(2):
        stream = batches(source, start=Position(), per_step=PER_STEP, rank=rank, world_size=2)
        shares.append([digest(batch) for batch, _ in itertools.islice(stream, BATCHES // 2)])
    return [one for pair in zip(*shares, strict=True) for one in pair]


def schedule(setup: SetUp) -> Finding:
    """Every step is one update, and the learning rate ends with the run."""
    run, config = setup.plain, setup.config
    optimization = config.optimization
    rates = max(run.rates.values(), key=max)
    peak, floor = config.lr, config.lr * config.lr_floor
    drops = [a - b for a, b in itertools.pairwise(rates) if a > b]
    if config.schedule == "constant":
        in_time, end = rates[-1] == peak, "constant"
    else:  # falls to the end and is, with the last update, one step from the floor
        early = sum(rate <= floor * (1 + 1e-9) for rate in rates)
        left = rates[-1] - floor
        in_time = early == 0 and left <= max(drops, default=0.0) * (1 + 1e-6)
        end = f"ends at {rates[-1] / peak:.3g} of it, {early} of the updates at the floor"
    updates = {len(one) for one in run.rates.values()}
    # a cosine has begun to fall when the warm-up ends
    lowest, most = (0.9 if config.schedule == "cosine" else 1 - 1e-6), 1 + 1e-6
    warm = rates[0] <= peak / max(optimization.warmup_steps, 1) * (1 + 1e-9)
    return Finding(
        what="each step is one update, and the schedule ends with the run",
        figure=f"{config.schedule}: {len(rates)} updates in {config.steps} steps, peak "
        f"{max(rates):.3g} of {peak:.3g}, {end}",
        passed=updates == {config.steps}
        and warm
        and in_time
        and lowest <= max(rates) / peak <= most,
        cure="the schedule is asked for another step than the one that is done, or stepped twice",
    )


class _Judged(Trained):
    """Validates twice with other random numbers, and looks at the networks' mode."""

    def __init__(self, setup: SetUp) -> None:
        super().__init__(setup)
        self.apart: list[float] = []
        self.training = 0

    def twice(self, *names: str | int) -> float:
        device = next(next(iter(self.networks.values())).parameters()).device
        found = []
        for seed in (0, 1):
            with seeding.reseeded(seed, *names, device=device), torch.no_grad():
                found.append(self.losses())
        return float(max(abs(a - b) for a, b in zip(*found, strict=True)))

    def validate(self, step: int) -> dict[str, float]:
        self.training += sum(m.training for n in self.networks.values() for m in n.modules())
        self.apart.append(self.twice("validation", step))
        return super().validate(step)


def validation(setup: SetUp) -> Finding:
    """Validation is without dropout, and training with it again."""
    judged = _Judged(setup)
    config = replace(setup.config, steps=2, validate_every=1)
    setup.train("validation", config, networks=judged.networks, validate=judged.validate)
    after = sum(not network.training for network in judged.networks.values())
    random = judged.twice("training")
    drops = sum(_drops(part) for n in judged.networks.values() for part in n.modules())
    return Finding(
        what="validation is without dropout, training with it",
        figure=f"two validations with other random numbers differ by {max(judged.apart):.3g}, two "
        f"losses in training by {random:.3g}, with {drops} dropouts; {judged.training} modules "
        f"validated in training mode, {after} networks trained in evaluation mode",
        passed=max(judged.apart) == 0
        and not judged.training
        and not after
        and (random > 0 or not drops),
        cure="dropout that doesn't ask self.training, or a network that isn't switched",
    )


def _drops(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
