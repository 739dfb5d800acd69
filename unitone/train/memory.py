"""Memory that the C library keeps instead of handing it back to the system between two steps."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Names and numbers of glibc's ``malloc.h``."""
GENEROUS = 2**31 - 1


def keep_freed() -> bool:
    """Make glibc reuse large blocks; return whether it could be told to.

    By default every large tensor is mapped and unmapped anew, and the kernel fills each of its
    pages with zeros first: a fifth of the time of a training step of a small model on a CPU. The
    process keeps its peak memory in exchange. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: GENEROUS, M_TOP_PAD: 2**26}
    return all(mallopt(name, value) for name, value in settings.items())
