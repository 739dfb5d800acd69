"""What every SSL encoder offers, and the one way to load one.

The folder ``encoders/`` is the registry: each public module there is a family. A family either has
``load() -> Encoder`` and goes by its module's name (``mfcc``), or it is a transformer and offers
``PUBLISHED`` (names and hub repositories), ``recognizes``, ``describe`` and ``build``; and, if it
is to be had as a Python package, ``PACKAGED`` (names, and where their files lie).

Axes: B batch, N samples (16 kHz), T frames, D width.
"""

import importlib
import pkgutil
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitone.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from unitone.tokenizers.encoders._architecture import Sizes
    from unitone.tokenizers.encoders._weights import Checkpoint


@runtime_checkable
class Encoder(Protocol):
    """Features of a waveform. A frame depends on its own utterance only, never on batch mates."""

    name: str
    """Family and size, as on the command line: ``mfcc``, ``hubert-base``, ``wavlm-large``."""
    dim: int
    """Width D of the features."""
    num_layers: int
    """Transformer blocks of the published model, the largest ``layer``; 0 where there are none."""
    hop: int
    """Samples from one frame to the next (320 = 20 ms; MFCC 160 = 10 ms)."""
    receptive_field: int
    """Samples that the first frame needs; the shortest usable utterance (400 = 25 ms)."""
    longest: int | None
    """Samples that can be seen at once (Whisper: 30 s); None: any number."""
    normalize: bool
    """Whether the caller has to give the waveform zero mean and unit variance, per utterance."""
    weight_hash: str
    """SHA-256 over the weights in a canonical order and spelling; the same for every file form."""

    def features(
        self, waveforms: Float[Tensor, "B N"], lengths: Int[Tensor, "B"], *, layer: int
    ) -> Float[Tensor, "B T D"]:
        """Return the output of block ``layer`` (1-based; 0 = the input of block 1), float32.

        The last block's output is without the layer norm that may follow it. Row b has
        ``(lengths[b] - receptive_field) // hop + 1`` valid frames; what follows is zero.

        Raises:
            ValueError: a length is below ``receptive_field`` or above N or ``longest``.
        """
        ...


@runtime_checkable
class _Family(Protocol):
    """A transformer family: the public module ``encoders/<family>.py``."""

    PUBLISHED: Mapping[str, str]

    def recognizes(self, names: Collection[str]) -> bool: ...

    def describe(self, checkpoint: "Checkpoint") -> tuple[str, "Sizes"]: ...

    def build(
        self,
        checkpoint: "Checkpoint",
        architecture: "Sizes",
        num_blocks: int,
        *,
        name: str,
        precision: Literal["fp32", "bf16"],
        device: torch.device,
    ) -> Encoder: ...


def load_encoder(
    ssl: str | Path,
    *,
    layer: int | None,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
) -> Encoder:
    """Load an encoder up to block ``layer``, or whole if ``layer`` is ``None``.

    Args:
        ssl: a name (``mfcc``, ``hubert-base``, ``wavlm-large``, …), a hub repository ``org/name``
            (from the local cache, else downloaded), a local Hugging Face or CTranslate2 directory,
            or a fairseq, unilm, s3prl or OpenAI ``.pt`` file. Nothing in a file is ever executed.
        layer: the last block to build; all weights are checked and hashed in any case.
        precision: of weights and matrix products; the features are float32 either way.
        device: where the encoder computes and its features lie.

    Raises:
        ConfigError: no such name, or no such layer.
        CheckpointError: the weights cannot be found, read, or fitted to a known model.
    """
    from unitone.tokenizers.encoders import _weights

    modules = {name: _module(name) for name in _family_names()}
    standalone = {name for name, module in modules.items() if hasattr(module, "load")}
    if str(ssl) in standalone:
        return cast("Encoder", modules[str(ssl)].load())
    families = [cast("_Family", m) for m in modules.values() if hasattr(m, "PUBLISHED")]
    published = {name: repo for family in families for name, repo in family.PUBLISHED.items()}

    place = packaged(str(ssl)) or _locate(ssl, published, standalone=standalone)
    checkpoint = _weights.read(place)
    for family in families:
        if family.recognizes(checkpoint.weights.keys()):
            break
    else:
        raise CheckpointError(f"{checkpoint.where} is of no known family: {', '.join(modules)}")
    size, architecture = family.describe(checkpoint)
    repositories = {repository: name for name, repository in published.items()}
    name = str(ssl) if str(ssl) in published else repositories.get(str(ssl), size)
    if layer is not None and not 0 <= layer <= architecture.num_layers:
        raise ConfigError(f"layer must be 1..{architecture.num_layers} for {name}, got {layer}")
    return family.build(
        checkpoint,
        architecture,
        architecture.num_layers if layer is None else layer,
        name=name,
        precision=precision,
        device=device,
    )


def is_standalone(ssl: str) -> bool:
    """Tell whether ``ssl`` names an encoder without weights, which has no layers to choose from."""
    return ssl in _family_names() and hasattr(_module(ssl), "load")


def packaged(ssl: str) -> Path | None:
    """Return where an installed Python package has the encoder ``ssl``; None if there is none."""
    for name in _family_names():
        known: Mapping[str, tuple[str, str]] = getattr(_module(name), "PACKAGED", {})
        package, folder = known.get(ssl, ("", ""))
        if package and (found := find_spec(package)) and found.submodule_search_locations:
            return Path(next(iter(found.submodule_search_locations))) / folder
    return None


def local_path(ssl: str) -> Path | None:
    """Return where the encoder ``ssl`` lies, None where it is a name or a hub repository."""
    published = (getattr(_module(name), "PUBLISHED", {}) for name in _family_names())
    path = Path(ssl).expanduser()
    named = is_standalone(ssl) or any(ssl in names for names in published)
    return path.resolve() if not named and path.exists() else None


def _family_names() -> list[str]:
    from unitone.tokenizers import encoders

    names = (module.name for module in pkgutil.iter_modules(encoders.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def _module(family: str) -> ModuleType:
    return importlib.import_module(f"unitone.tokenizers.encoders.{family}")


def _locate(ssl: str | Path, published: Mapping[str, str], *, standalone: Collection[str]) -> Path:
    from unitone.tokenizers.encoders import _hub

    name = str(ssl)
    if name in published:
        return _hub.fetch(published[name])
    path = Path(ssl).expanduser()
    if path.exists():
        return path
    local = path.parent.is_dir() or name.startswith((".", "~"))  # a mistyped path is no hub id
    if (
        isinstance(ssl, str)
        and not local
        and name.count("/") == 1
        and path.suffix not in (".pt", ".bin")
    ):
        return _hub.fetch(name)
    choices = ", ".join(sorted({*published, *standalone}))
    raise ConfigError(
        f"there is no encoder {name!r}: give one of {choices}, a hub repository org/name, "
        "or a path to a Hugging Face or CTranslate2 directory or a fairseq .pt file"
    )
