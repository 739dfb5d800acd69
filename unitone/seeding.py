"""Independent random streams derived from one seed by name.

``stream(seed, "mask", epoch, rank)`` hashes the names, so adding a draw to one stream does not
move another, and a stream does not depend on the order of work or on the number of workers.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to ``seed`` and ``names`` (counter-based, Philox)."""
    text = "\x1f".join([str(seed), *map(str, names)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def keys(seed: int, *names: str | int) -> Callable[[str], int]:
    """Return a function from a text to 64 random bits, those of ``seed`` and ``names``.

    For millions of texts: a stream each would take 20 times as long.
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    own = hashlib.blake2b(text.encode(), digest_size=32).digest()

    def key(text: str) -> int:
        data = text.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=own).digest())

    return key


def torch_generator(seed: int, *names: str | int) -> "torch.Generator":
    """Return a CPU generator of PyTorch that belongs to ``seed`` and ``names``."""
    import torch

    return torch.Generator().manual_seed(int(stream(seed, *names).integers(2**63)))


@contextlib.contextmanager
def reseeded(seed: int, *names: str | int, device: "torch.device") -> Iterator[None]:
    """Draw what comes from torch's global state, such as dropout, from ``stream(seed, *names)``."""
    import torch

    drawn = int(stream(seed, *names).integers(2**63))
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # not torch.manual_seed: without a GPU each call costs 0.7 ms, and a stack trace it keeps
        torch.default_generator.manual_seed(drawn)
        if on_gpu:
            torch.cuda.manual_seed(drawn)
        yield
