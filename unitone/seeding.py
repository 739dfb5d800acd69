"""Independent random streams derived from one seed by name.

``stream(seed, "mask", epoch, rank)`` hashes the names, so adding a draw to one stream does not
move another, and a stream does not depend on the order of work or on the number of workers.
"""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to ``seed`` and ``names`` (counter-based, Philox)."""
    text = "\x1f".join([str(seed), *map(str, names)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
