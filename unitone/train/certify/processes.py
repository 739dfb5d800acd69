"""Two processes are one: the same losses, gradients and weights, with DDP and with FSDP2.

They run on the CPU (gloo) in float32, whatever the set-up's device is: there may be one GPU only.
"""

import multiprocessing
import os
import socket
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unitone.errors import UnitoneError
from unitone.train import distributed
from unitone.train.certify.setup import STEPS_OF_TWO, Finding, Run, SetUp

PATIENCE = 300.0
"""Seconds after which two processes that don't end are ended."""
CLOSE = 1e-3
"""Relative difference of losses and of gradient norms: sums in another order."""
CLOSE_WEIGHTS = 0.02
"""Of the way that the weights went; where a gradient is noise, AdamW goes as far as elsewhere."""

Way = Literal["ddp", "fsdp"]


def work(setup: SetUp, way: Way, rank: int, port: int) -> None:
    """Train as process ``rank`` of two; why that failed is left in a file."""
    os.environ |= {
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with Path(os.devnull).open("w") as nowhere:  # the backends warn in C++
        os.dup2(nowhere.fileno(), 2)
    try:
        with distributed.started("cpu"):
            setup.train(way, replace(setup.side_by_side, parallel=way))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        (setup.folder / f"{way}-{rank}.failed").write_text(text, encoding="utf-8")
        raise SystemExit(1) from None


def two_are_one(setup: SetUp, *, way: Way) -> Finding:
    """Train with one process and with two."""
    one = setup.alone
    _launch(setup, way)
    two = Run(out=setup.folder / way, networks={})
    curves = [
        [v for record in run.curve for k, v in sorted(record.items()) if _compared(k)]
        for run in (one, two)
    ]
    apart = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(*curves, strict=True))
    start = {f"{n}.{k}": p for n, m in setup.networks().items() for k, p in m.named_parameters()}
    ways = [_gone(run, start) for run in (one, two)]
    gone = float(ways[0].norm())
    share = float((ways[0] - ways[1]).norm()) / max(gone, 1e-12)
    return Finding(
        what=f"two processes are one, with {way.upper()}",
        figure=f"{STEPS_OF_TWO} steps: losses and gradient norms differ by {apart:.2g} of "
        f"themselves, weights by {share:.2g} of the way they went ({gone:.3g})",
        passed=apart <= CLOSE and share <= CLOSE_WEIGHTS and gone > 0,
        cure="a forward that isn't called through the wrapped module, a mean over each process's "
        "own items instead of a sum, or weights without a gradient in some batch (FSDP)",
    )


def _compared(name: str) -> bool:
    return name.rpartition("/")[2] in ("loss", "grad_norm")


def _gone(run: Run, start: dict[str, Any]) -> Tensor:
    """Return the way that all weights have gone, as one vector."""
    saved = {f"{n}.{k}": t for n, tensors in run.saved().items() for k, t in tensors.items()}
    return torch.cat([(saved[name] - p.detach().cpu()).flatten() for name, p in start.items()])


def _launch(setup: SetUp, way: Way) -> None:
    """Run `work` in two processes.

    Raises:
        UnitoneError: one of them failed, or they don't end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context: Any = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    ranks = [context.Process(target=partial(work, setup, way, r, port)) for r in range(2)]
    for rank in ranks:
        rank.start()
    end = time.monotonic() + PATIENCE
    try:
        while any(rank.is_alive() for rank in ranks) and time.monotonic() < end:
            if any(rank.exitcode for rank in ranks):  # the other would wait for it
                break
            time.sleep(0.05)
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    reports = [*setup.folder.glob(f"{way}-*.failed")]
    if reports:  # the later one has lost the other
        first = min(reports, key=lambda path: path.stat().st_mtime_ns)
        raise UnitoneError(first.read_text(encoding="utf-8").splitlines()[0])
    if any(rank.exitcode for rank in ranks):
        codes = ", ".join(str(rank.exitcode) for rank in ranks)
        raise UnitoneError(f"two processes ended with {codes}")
