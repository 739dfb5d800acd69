"""Monotonic alignment search, beside compiled ones where they are installed.

``pip install monotonic-alignment-search monotonic-align``, both in Cython; the paths have to be the
same. One thread, and CPU time: other processes of the machine don't count. Scores come as training
has them, with a frame's tokens side by side, and the other way round, as the others read them.
"""

import functools
import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unitone import seeding
from unitone.config import command_line
from unitone.lm.losses import alignment

OTHERS = {"monotonic_alignment_search": False, "monotonic_align": True}
"""Whether they take frames before tokens."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    rows: int = 32
    tokens: int = 200
    frames: int = 1000
    repeats: int = 10
    """Of which the fastest counts."""


def fastest(call: Callable[[], object], repeats: int) -> float:
    """Return the CPU milliseconds of a call."""
    call()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return 1000 * best


def measured(config: BenchConfig) -> dict[str, float]:
    """Return milliseconds by name.

    Raises:
        RuntimeError: another one finds other durations.
    """
    generator = seeding.torch_generator(0)
    shape = (config.rows, config.tokens, config.frames)
    scores = torch.randn(shape, generator=generator).log_softmax(dim=1)
    beside = scores.transpose(1, 2).contiguous().transpose(1, 2)
    sizes = [torch.full((config.rows,), size) for size in (config.tokens, config.frames)]
    found = alignment.monotonic(scores, *sizes)
    took = {
        "ours, a frame's tokens side by side": fastest(
            lambda: alignment.monotonic(beside, *sizes), config.repeats
        ),
        "ours, a token's frames side by side": fastest(
            lambda: alignment.monotonic(scores, *sizes), config.repeats
        ),
    }
    for name, turned in OTHERS.items():
        try:
            search = importlib.import_module(name).maximum_path
        except ImportError:
            continue
        given = scores.transpose(1, 2).contiguous() if turned else scores
        mask = torch.ones_like(given)
        path: Tensor = search(given, mask)
        if not torch.equal(path.sum(dim=1 if turned else 2).long(), found):
            raise RuntimeError(f"{name} finds other durations")
        took[name] = fastest(functools.partial(search, given, mask), config.repeats)
    return took


def main(argv: list[str] | None = None) -> None:
    """Print a line for each."""
    config = command_line(BenchConfig, argv, __doc__)
    torch.set_num_threads(1)
    for name, milliseconds in measured(config).items():
        sys.stdout.write(f"{milliseconds:8.1f} ms  {name}\n")


if __name__ == "__main__":
    main()
