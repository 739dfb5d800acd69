"""Speaker vectors from a file: one for each utterance, or one for each speaker, by name.

They are made by a speaker encoder of the user's choice; here they are numbers with a name. Axes: E
width of a vector.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from unitone.errors import CheckpointError, ConfigError


def read(path: Path, *, option: str) -> dict[str, Float32[np.ndarray, "E"]]:
    """Return the vectors of a safetensors file by utterance id or speaker.

    Args:
        path: the file.
        option: of the command line that named it, for errors.

    Raises:
        CheckpointError: the file can't be read.
        ConfigError: it holds none, or something else than vectors of one length.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = {name: vector.astype(np.float32) for name, vector in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{option} {path}: not readable ({error})") from error
    shapes = sorted({vector.shape for vector in found.values()})
    if len(shapes) != 1 or len(shapes[0]) != 1:
        raise ConfigError(f"{option} {path}: expected vectors of one length: {shapes}")
    return found


def find(embeddings: Collection[str], *, id: str, speaker: str | None) -> str | None:
    """Return whose vector an utterance has: its own or its speaker's, None with neither."""
    return next((name for name in (id, speaker) if name is not None and name in embeddings), None)


def name_of(embeddings: Collection[str], *, id: str, speaker: str | None, option: str) -> str:
    """Return what `find` does.

    Raises:
        ConfigError: ``embeddings`` has neither.
    """
    name = find(embeddings, id=id, speaker=speaker)
    if name is None:
        raise ConfigError(f"{option}: none for utterance {id!r} or its speaker {speaker!r}")
    return name
