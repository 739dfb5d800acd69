"""What the machine could do at most: the rate of lone matrix products, and of reading memory.

A benchmark that is bound by one of them prints its share beside the ratio to the alternative, which
says how much is left, whatever the machine. Both are measured in the process of the benchmark, with
its threads, right before it.

``python -m unitone.eval.bench.limits`` prints them: square products in each precision, and reading
blocks that fit the caches and one that doesn't.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from unitone import seeding
from unitone.config import command_line
from unitone.nn.int8 import Int8Matrix, has_int8
from unitone.nn.linear import multiply, pack

SECONDS = 0.2
"""Measured for so long, in runs of which the fastest counts: others can only slow a run down."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    size: int = 2048
    """Rows, inputs and outputs of the products."""
    megabytes: tuple[int, ...] = (1, 30, 60, 120, 1000)
    """Sizes of the blocks that are read."""
    threads: int = int(os.environ.get("OMP_NUM_THREADS", "0")) or (os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Product:
    """``rows`` vectors times a matrix, ``count`` times."""

    rows: int
    inputs: int
    outputs: int
    count: float = 1

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2 * self.rows * self.inputs * self.outputs * self.count


def product_rate(products: Iterable[Product], dtype: torch.dtype) -> float:
    """Return operations per second of all products together, each alone and warm.

    Each goes through the fastest of what PyTorch carries: its own choice (MKL for float32) and
    oneDNN's packed matrices.
    """
    flops = seconds = 0.0
    generator = seeding.torch_generator(0)
    for one in products:
        rows = torch.randn(one.rows, one.inputs, generator=generator).to(dtype)
        weight = torch.randn(one.outputs, one.inputs, generator=generator).to(dtype)
        seconds += one.count * min(fastest(run) for run in _ways(rows, weight))
        flops += one.flops
    return flops / seconds


def _ways(rows: torch.Tensor, weight: torch.Tensor) -> list[Callable[[], object]]:
    ways: list[Callable[[], object]] = [lambda: F.linear(rows, weight)]
    packed = pack(weight, rows=len(rows))
    if packed is not None:
        ways.append(lambda: multiply(rows, packed))
    return ways


def read_rate(num_bytes: int) -> float:
    """Return bytes per second of reading a block of ``num_bytes``, over and over.

    Weights of a decoding step are read so; what of them fits a cache is found there again.
    """
    values = torch.ones(num_bytes // 4)
    return num_bytes / min(fastest(values.sum), fastest(lambda: torch.dot(values, values)))


@torch.inference_mode()
def fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest run."""
    run()
    least, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - started)
    return least


def main(argv: list[str] | None = None) -> int:
    """Print the limits; return the exit status."""
    config = command_line(BenchConfig, argv, __doc__)
    torch.set_num_threads(config.threads)
    print(f"{config.threads} threads, torch {torch.__version__}")
    square = Product(rows=config.size, inputs=config.size, outputs=config.size)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        print(f"products in {name}     {product_rate([square], dtype) / 1e12:7.3f} TFLOP/s")
    if has_int8():
        rows = torch.randn(config.size, config.size, generator=seeding.torch_generator(0))
        matrix = Int8Matrix(rows)
        rate = square.flops / fastest(lambda: matrix(rows))
        print(f"products in int8     {rate / 1e12:7.3f} TFLOP/s, rounding the rows included")
    for megabytes in config.megabytes:
        print(f"reading {megabytes:4} MB      {read_rate(megabytes * 10**6) / 1e9:7.1f} GB/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
