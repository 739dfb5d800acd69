"""What Linux says of the processor; elsewhere nothing is known. Imports nothing slow."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cpuinfo(*keys: str) -> str:
    """Return what is said of the first processor under one of ``keys``, or nothing."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in keys:
                return value.strip()
    return ""


def bf16_instruction() -> str:
    """Return the processor's instruction set for bf16 matrix products, or nothing."""
    flags = cpuinfo("flags", "Features").split()  # x86, Arm
    return next((name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags), "")
