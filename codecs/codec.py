"""What every codec offers, and the one way to load one.

The folder is the registry: a public module ``codecs/<name>.py`` with ``load(path) -> Codec`` is a
codec, and its name is what ``config.json`` of a model directory says under ``codec``. The other
modules of the folder are the interface, the commands, and parts (with an underscore).

A codec speaks numpy and one utterance at a time, so that who uses it needs neither its framework
nor its batches; what it can do in batches it offers beside this.

Axes: N samples, Q levels, T frames.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor

from unitone import files, model_dir
from unitone.corpus.audio import Samples, waveform_of, write
from unitone.corpus.waveforms import LoadedWaveform
from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.passport import CodecPassport
from unitone.train.checkpoint import load_tensors, weight_hash


class Sound(NamedTuple):
    """A waveform and its rate: what every decoder returns. Never 16-bit integers."""

    wave: Float32[np.ndarray, "N"]
    """Nominally in [-1, 1]."""
    rate: int
    """Hz."""


@runtime_checkable
class Codec(Protocol):
    """Waveform to codes and back, deterministic in both directions.

    A frame is ``sample_rate / frame_rate`` samples, a whole number, the hop. Whatever the codes,
    ``decode`` returns exactly T hops: durations add up, and pieces can be joined.
    """

    name: str
    """The module's name."""
    sample_rate: int
    """Hz, of the waveforms inside; ``encode`` takes any rate."""
    frame_rate: float
    """Hz."""
    num_levels: int
    codebook_size: int
    """Codes are 0 to ``codebook_size - 1`` at every level."""

    def encode(self, wave: Samples, rate: int) -> Int32[np.ndarray, "Q T"]:
        """Return the codes of a waveform, whatever `unitone.corpus.audio.waveform_of` takes.

        Raises:
            ValueError: it is shorter than one frame, or holds samples that are not finite.
        """
        ...

    def decode(
        self, codes: Int[np.ndarray, "..."], *, speaker: str | Float[np.ndarray, "E"] | None = None
    ) -> Sound:
        """Return the waveform of codes ``(Q, T)``, or ``(T,)`` where there is one level.

        Args:
            codes: at least one frame.
            speaker: whose voice, where the codes leave that open; None = the codec's first one.

        Raises:
            ValueError: wrong shape, a code outside the codebook, or an unknown speaker.
        """
        ...


def names() -> list[str]:
    """Return the codecs of this folder: its public modules with a function ``load``."""
    folder = str(Path(__file__).parent)
    modules = [module.name for module in pkgutil.iter_modules([folder]) if not module.ispkg]
    return [name for name in modules if not name.startswith("_") and name not in _NO_CODECS]


_NO_CODECS = frozenset({"codec", "encode", "options", "synthesize", "train"})
"""The interface, the commands and their options."""


def module_of(name: str) -> ModuleType:
    """Import the codec called ``name``.

    Raises:
        ConfigError: there is no such codec.
    """
    if name not in names():
        raise ConfigError(f"no codec {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"unitone.codecs.{name}")


def load(path: Path | str, *, device: str = "cpu") -> Codec:
    """Read a codec's model directory, whichever codec it is.

    Raises:
        ConfigError: there is no such directory, or its codec isn't known.
        CheckpointError: it is unfinished or damaged.
    """
    path = model_dir.resolve(path)
    codec = module_of(read_config(path)["codec"]).load(path, device=device)
    assert isinstance(codec, Codec)
    return codec


def passport_of(path: Path | str, codec: Codec) -> CodecPassport:
    """Return what the codes of ``codec``, loaded from ``path``, are known by.

    A codec without weights is known by its ``config.json``.

    Raises:
        CheckpointError: the weights are damaged, or gone from a directory of Transformers.
    """
    path = model_dir.resolve(path)
    weights: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        weights |= load_tensors(file)
    config = read_config(path)
    if not weights and "model_type" in config:
        raise CheckpointError(f"{path} holds no *.safetensors; fetch or save the codec again")
    return CodecPassport(
        name=str(config.get("model_type", codec.name)),
        weight_hash=weight_hash(weights) if weights else files.sha256(path / model_dir.CONFIG),
        levels=codec.num_levels,
        codebook_size=codec.codebook_size,
        frame_rate=codec.frame_rate,
        sample_rate=codec.sample_rate,
    )


def read_config(path: Path) -> dict[str, Any]:
    """Return ``config.json`` of a codec; it has ``codec``, the name; errors as `load`."""
    config = model_dir.read_config(model_dir.resolve(path))
    if "codec" not in config and "model_type" in config:
        return {"codec": "huggingface", **config}  # a directory that Transformers wrote
    if not isinstance(config.get("codec"), str):
        raise CheckpointError(f"{path / model_dir.CONFIG} doesn't say which codec it is of")
    return config


def at_rate(wave: Samples, rate: int, *, wanted: int) -> Float32[np.ndarray, "M"]:
    """Return a waveform at ``wanted`` Hz, mono: the one place where codecs look at their input.

    Raises:
        ValueError: as `unitone.corpus.audio.waveform_of`.
    """
    return waveform_of(wave, rate, wanted=wanted)


def check_codes(
    codes: Int[np.ndarray, "..."], *, num_levels: int, codebook_size: int
) -> Int32[np.ndarray, "Q T"]:
    """Return ``codes`` as ``(Q, T)``, T at least 1.

    Raises:
        ValueError: another shape, or a code outside the codebook.
    """
    levels = codes[None] if codes.ndim == 1 else codes
    if levels.ndim != 2 or levels.shape[0] != num_levels:
        raise ValueError(f"expected codes ({num_levels}, T), got shape {codes.shape}")
    if levels.shape[1] == 0:
        raise ValueError("there is nothing to decode: no codes at all")
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high >= codebook_size:
        wrong = low if low < 0 else high
        raise ValueError(f"code {wrong} is outside 0..{codebook_size - 1}")
    return levels.astype(np.int32)


def codes_of(codec: Codec, one: LoadedWaveform) -> Int32[np.ndarray, "Q T"]:
    """Return the codes of a recording that was read at the codec's rate.

    Raises:
        ValueError: why it has none.
    """
    if one.error is not None:
        raise ValueError(one.error)
    if one.waveform is None:
        raise ValueError("too long for a codec to encode in one piece: cut it")
    return codec.encode(one.waveform, codec.sample_rate)


def write_wave(path: Path, sound: Sound) -> None:
    """Write a 16-bit WAV file, whole or not at all; louder than full scale is made quieter."""
    peak = float(np.abs(sound.wave).max(initial=0.0))
    write(path, sound.wave / max(peak, 1.0), sound.rate, form="WAV")
