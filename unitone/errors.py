"""The exceptions a caller may want to catch, and the exit status each one means."""


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
