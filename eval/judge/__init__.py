"""The ASR judge of synthesized speech. ``python -m eval.judge train|score``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitone.eval.judge.judge import Judge as Judge
    from unitone.eval.judge.judge import load as load


def __getattr__(name: str) -> Any:
    """Import ``Judge`` and ``load`` when they are asked for: the options need no torch."""
    if name in ("Judge", "load"):
        from unitone.eval.judge import judge

        return getattr(judge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
