"""Which model families there are, and which one a size or a directory is of.

A family is a folder of ``lm/`` that says ``PREFIX``, how the names of its sizes begin (``lm-``).
Nobody lists them: a folder that is there is found. It holds

    options.py      ``SIZES``; ``Options``, of ``lm.train``; ``DecodingConfig``, of ``lm.decode``:
                    the command lines read it, so it imports no torch
    model.py        the network and its config
    objective.py    the trainable module: ``forward(batch) -> Loss``; the network is its ``model``
    batch.py        how records become batches, and what an example costs
    predictor.py    ``open_predictor``
    weights.py      ``to_json``, ``from_json``, ``describe``, ``layouts``, ``to_tensors``,
                    ``load_tensors``
    training.py     ``prepare``, what ``lm.train`` trains
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from unitone import lm, model_dir
from unitone.errors import ConfigError

DEFAULT = "decoder"
"""Family of directories that name none."""


def names() -> dict[str, str]:
    """Return the families, and how the names of their sizes begin."""
    folders = [found.name for found in pkgutil.iter_modules(lm.__path__) if found.ispkg]
    packages = {name: importlib.import_module(f"unitone.lm.{name}") for name in folders}
    return {
        name: package.PREFIX for name, package in packages.items() if hasattr(package, "PREFIX")
    }


def of_size(size: str) -> str:
    """Return the family that a size belongs to, by the beginning of its name.

    Raises:
        ConfigError: there is no such family; the beginnings are named.
    """
    for name, prefix in names().items():
        if size.startswith(prefix):
            return name
    known = ", ".join(f"{prefix}…" for prefix in names().values())
    raise ConfigError(f"--config {size}: no model size of this name; there are {known}")


def of_directory(folder: Path) -> str:
    """Return the family of a model directory, or of a run's folder.

    Raises:
        ConfigError: there is no such directory, or its family isn't here.
        CheckpointError: it is damaged.
    """
    return of_config(model_dir.read_config(model_dir.resolve(folder), option="--model"))


def of_config(config: dict[str, Any]) -> str:
    """Return the family that ``config.json`` names; errors as `of_directory`."""
    name = str(config.get("family", DEFAULT))
    if name not in names():
        raise ConfigError(
            f"a model of the family {name!r}; this version has {', '.join(names())}: use the "
            "version of Unitone that wrote it"
        )
    return name


def module(family: str, part: str) -> ModuleType:
    """Import a file of a family's folder."""
    return importlib.import_module(f"unitone.lm.{family}.{part}")
