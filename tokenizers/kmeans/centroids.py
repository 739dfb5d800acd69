"""Read k-means centroids that other toolkits wrote, without running anything the file asks for.

==================  ==============================================================
file                written by
==================  ==============================================================
joblib, pickle      scikit-learn models: fairseq ``*_km500.bin``, GSLM ``km.bin``,
                    ESPnet ``km_2000.mdl``; plain, or compressed by joblib
FAISS index         ``write_index`` of a flat index (``IndexFlatL2``, ``IndexFlatIP``)
``.npy``            ``numpy.save`` of ``faiss.Kmeans.centroids``
``.safetensors``    ours, and others with one matrix
``.pt``             ``torch.save`` of a tensor, or of a dictionary holding one
==================  ==============================================================

The kind is told by the first bytes, not by the name. Pickles go through `unitone.safe_pickle`.
"""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from unitone.errors import CheckpointError
from unitone.safe_pickle import load_arrays

_NAMES = ("cluster_centers_", "centroids", "cluster_centers", "codebook", "embed", "weight")
"""What the matrix is called where a file holds more than one; the first that is there counts."""
_LARGEST = 1 << 32
"""Bytes a compressed file may unpack to; 4 GiB is a thousand times the usual."""
_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_INDEXES = tuple(b"I" + letter.encode() for letter in "xwvHNLsmMRlBb2DS")
"""How the other kinds of FAISS indexes start."""
_FLAT_INDEXES = (b"IxF2", b"IxFI", b"IxFl")


def read_centroids(path: Path | str) -> Float32[np.ndarray, "K D"]:
    """Return the centroids in the file ``path``, of any kind in the table above.

    Raises:
        CheckpointError: The file can't be read or holds no matrix of finite numbers.
    """
    try:
        found = _matrix(_parse(Path(path)))
    except (
        *(OSError, EOFError, ValueError, KeyError, IndexError, TypeError),
        *(AttributeError, OverflowError, MemoryError, RuntimeError, struct.error),
        *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    ) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"cannot read k-means centroids from {path}: {reason}. Expected are a scikit-learn "
            "model saved by joblib, a flat FAISS index, .npy, .safetensors, or a .pt tensor"
        ) from error
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "fiu":
        raise CheckpointError(
            f"{path} holds an array of shape {found.shape} and type {found.dtype}; "
            "centroids are a matrix of numbers (k, width)"
        )
    centroids = np.ascontiguousarray(found, dtype=np.float32)
    if not np.isfinite(centroids).all():
        row = int(np.flatnonzero(~np.isfinite(centroids).all(axis=1))[0])
        raise CheckpointError(f"centroid {row} in {path} is NaN or infinite; the file is damaged")
    return centroids


def _parse(path: Path) -> Any:
    data = path.read_bytes()
    if not data:
        raise ValueError("the file is empty")
    head = data[:16]
    if head.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(data), allow_pickle=False)
    if head[:4] in _FLAT_INDEXES:
        return _flat_index(data)
    if head[:2] in _INDEXES and head[2:4].isalnum():
        raise ValueError(
            f"it is the FAISS index {head[:4].decode()!r}, not a flat index: save its centroids, "
            "e.g. `numpy.save(path, index.quantizer.reconstruct_n(0, index.nlist))` of an IVF index"
        )
    if zipfile.is_zipfile(io.BytesIO(data)) or head.startswith(_LEGACY_TORCH):
        return _torch_file(data)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < len(data):
        from safetensors.torch import load

        return load(data)
    return load_arrays(_decompressed(data))


def _matrix(value: Any) -> NDArray[Any]:
    """Return the one matrix of what a file held, or the one called like centroids."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(torch.float32).numpy()
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, dict):
        raise ValueError("it holds no array")
    for name in _NAMES:
        if isinstance(value.get(name), np.ndarray | torch.Tensor):
            return _matrix(value[name])
    inner = [item for item in value.values() if isinstance(item, np.ndarray | torch.Tensor | dict)]
    if len(inner) != 1:
        names = ", ".join(map(str, list(value)[:8])) or "nothing"
        raise ValueError(f"it holds {names}; none of them is called {_NAMES[0]} or {_NAMES[1]}")
    return _matrix(inner[0])


def _torch_file(data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it is a torch file with other things than tensors in it") from error


def _flat_index(data: bytes) -> NDArray[Any]:
    """Return the vectors of a flat FAISS index.

    Layout, little-endian: four letters, width int32, count int64, two unused int64, trained uint8,
    metric int32 (a float32 follows if it is above 1), number of floats uint64, the floats.
    """
    width, count, _, _, _, metric = struct.unpack_from("<iqqqBi", data, 4)
    position = 4 + struct.calcsize("<iqqqBi") + (4 if metric > 1 else 0)
    (floats,) = struct.unpack_from("<Q", data, position)
    if width < 1 or count < 0 or floats != width * count:
        raise ValueError(f"the FAISS index says {count} vectors of width {width}: {floats} numbers")
    return np.frombuffer(data, "<f4", floats, position + 8).reshape(count, width)


def _decompressed(data: bytes) -> bytes:
    """Undo the compression joblib offers, told by the first bytes; plain data come back as is."""
    openers: dict[bytes, Callable[[io.BytesIO], Any]] = {
        b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
        b"BZh": bz2.BZ2File,
        b"\xfd7zXZ": lzma.LZMAFile,
        b"\x5d\x00": lzma.LZMAFile,
    }
    if data.startswith(b"\x78"):
        plain = zlib.decompressobj().decompress(data, _LARGEST)
    elif data.startswith(b"\x04\x22\x4d\x18"):
        raise ValueError(
            "it is compressed with lz4; save it again with joblib's compress=('zlib', 3)"
        )
    else:
        opener = next((o for magic, o in openers.items() if data.startswith(magic)), None)
        if opener is None:
            return data
        plain = opener(io.BytesIO(data)).read(_LARGEST)
    if len(plain) == _LARGEST:
        raise ValueError("it unpacks to more than 4 GiB")
    return plain
