"""Model directories of every kind: language models, unit decoders, recognizers of speech.

    config.json         what the model is; read with `read_config`
    model.safetensors   its weights
    README.md           what made it

A run's folder stands for the model in it: `resolve` takes its ``best``, or its ``last``.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitone import files
from unitone.errors import CheckpointError, ConfigError, UnitoneError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
CURE = "copy the directory again, or save it again from a checkpoint of the run"


def resolve(path: Path | str) -> Path:
    """Return ``path``; of a training run's folder, its best model, or its last.

    Raises:
        ConfigError: it is no path.
    """
    path = files.path_of(path, "a model directory")
    for name in ("best", "last"):  # first: a run's folder has a config.json of its own
        if (path / name / CONFIG).is_file():
            return path / name
    return path


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say that a file of ours is damaged where its values can't be used, whatever that raises.

    Raises:
        CheckpointError: naming the file.
    """
    try:
        yield
    except UnitoneError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path} is damaged: {error}; {CURE}") from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); {CURE}") from error


def read_config(folder: Path, *, option: str = "") -> dict[str, Any]:
    """Return ``config.json`` of the model directory ``folder``.

    ``option`` is the one that named it, for errors (``--model``).

    Raises:
        ConfigError: there is no such directory.
        CheckpointError: the file is missing or damaged.
    """
    if not folder.is_dir():
        from unitone.train import checkpoint

        checkpoint.restore(folder)  # a process was killed while it replaced the directory
    if not folder.is_dir():
        raise ConfigError(f"{option} {folder}: no such directory".lstrip())
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: not a finished model directory; {CURE}")
    config = files.read_json(path)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object; {CURE}")
    return config
