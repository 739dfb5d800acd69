"""Unitone: discrete-token unified speech language models.

>>> unitone.load("exp/run/best").transcribe("a.wav")  # doctest: +SKIP
'two dogs are playing'
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitone.lm.inference import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``load`` when it is asked for: ``import unitone`` itself never imports torch."""
    if name == "load":
        from unitone.lm.inference import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
