"""The exceptions a caller may want to catch, and the exit status each one means."""

from collections.abc import Sequence


class UnitoneError(Exception):
    """Anything this toolkit reports in a sentence rather than a traceback; exit status 1."""

    exit_status = 1


class ConfigError(UnitoneError, ValueError):
    """An option or a combination of artifacts that cannot work; exit status 2 (usage)."""

    exit_status = 2


class CorpusError(UnitoneError):
    """A recording or a manifest line that cannot be used; ``str(error)`` is the reason."""


class CheckpointError(UnitoneError):
    """Weights or an artifact on disk that cannot be read or do not fit the model."""


MANY = 20
"""Names that a sentence can take; of more, the nearest are named."""


def choices(name: str, known: Sequence[str]) -> str:
    """Return what there is instead of ``name``: all of a few, the nearest of many.

    >>> choices("anne", ["bob", "ann"])
    'bob, ann; the nearest is ann'
    >>> choices("anne", [])
    'none'
    """
    from difflib import get_close_matches

    if len(known) > MANY:
        near = get_close_matches(str(name), known, n=5, cutoff=0.0)
        return f"{len(known)}; the nearest are {', '.join(near)}"
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    return (", ".join(known) or "none") + (f"; the nearest is {near[0]}" if near else "")
