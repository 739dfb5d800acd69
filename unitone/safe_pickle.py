"""Read what other toolkits pickled, running nothing of it.

A pickle is a program: it names functions and calls them. ``torch.load(weights_only=True)`` refuses
checkpoints of fairseq and unilm, which mix tensors with objects of classes that need not be
installed (omegaconf, argparse, fairseq), and has no say over the k-means models of scikit-learn.
Here only tensors and plain containers come to life; any other class or function that the pickle
names becomes an inert `Stub`, which records what it is called with and does nothing.

`load_torch` reads both forms of a PyTorch checkpoint, the zip archive (PyTorch 1.6 and later) and
the older flat stream; `load_arrays` what pickle and joblib write of numpy arrays; `plain` turns the
stubs of both into the values that they stand for.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unitone.errors import CheckpointError

_DEEPEST = 32
"""Levels of nesting that `plain` follows."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of the flat stream; torch/serialization.py
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPES.values()}
_CONTAINERS: dict[str, type] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "torch.Size": tuple,
}


class Stub:
    """Stands for any class, function or object that is not trusted; every use is only recorded."""

    name = ""
    """Of what it stands for, ``module.name``."""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: object, **kwargs: object) -> "Stub":
        """Accept any arguments, as a pickle may call it as a class or as a function."""
        stub = super().__new__(cls)
        stub.args, stub.state = args, None
        return stub

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Leave them to ``__new__``, which is all that some pickles call."""

    def __call__(self, *args: object, **kwargs: object) -> "Stub":
        """Return another of its kind."""
        return type(self)(*args, **kwargs)

    def __setstate__(self, state: object) -> None:
        """Keep what the pickle would have restored."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Drop an item of a dictionary-like object."""

    def append(self, value: object) -> None:
        """Drop an item of a list-like object."""

    def extend(self, values: object) -> None:
        """Drop the items of a list-like object."""


def plain(value: object, *, depth: int = 0) -> Any:
    """Turn stubs into what they stand for: arrays, settings (argparse, omegaconf), attributes."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: plain(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth=depth + 1) for item in value]
    if not isinstance(value, Stub):
        return value
    if value.name.endswith("multiarray._reconstruct"):
        _, shape, dtype, is_fortran, data = value.state
        if isinstance(data, Stub):  # protocol 2: bytes as a latin-1 string through _codecs.encode
            data = str(data.args[0]).encode("latin-1")
        return _array(data, dtype, shape, "F" if is_fortran else "C")
    if value.name.endswith("numeric._frombuffer"):
        return _array(*value.args[:4])
    state = value.state
    if isinstance(state, dict):  # omegaconf's DictConfig and ListConfig, and its nodes
        state = state.get("_content", state.get("_val", state))
    return plain(state, depth=depth + 1)


def load_torch(path: Path) -> Any:
    """Return the object in ``path``: tensors on the CPU, containers, numbers, text and stubs.

    Raises:
        CheckpointError: the file is damaged, or is no PyTorch checkpoint.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _load_zip(archive)
        with path.open("rb") as file:
            return _load_flat(file, path.stat().st_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"{path} is not a readable PyTorch checkpoint ({type(error).__name__}: {error}); "
            "fetch or copy it again"
        ) from error


def load_arrays(data: bytes) -> Any:
    """Return what a pickle or joblib file holds: arrays, values, objects as their attributes.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return plain(_ArrayUnpickler(io.BytesIO(data)).load())
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"it is no pickle of a k-means model ({error})") from error


class _Unpickler(pickle.Unpickler):
    """Finds containers; every other name is a fresh `Stub` class, and nothing is imported."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file, encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: what is not listed here is not reachable from a pickle."""
        full = f"{module}.{name}"
        # Bound methods and built-in types cannot be altered by a pickle's BUILD; a stub is new.
        return _CONTAINERS.get(full) or type("Stub", (Stub,), {"name": full})

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to what lies outside the file."""
        raise pickle.UnpicklingError(f"it refers to an outside object {pid!r}")


class _TorchUnpickler(_Unpickler):
    def __init__(
        self, file: io.BufferedIOBase, storage: Callable[[str, torch.dtype, int], Tensor]
    ) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Find tensors too."""
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and name in _DTYPE_NAMES:
            return _DTYPE_NAMES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._parameter
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage, flat; ``pid`` is ("storage", type, key, device, numel, …)."""
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or (view and view[0]):
            raise CheckpointError(f"unsupported storage {kind!r} in the pickle")
        return self._storage(str(key), dtype, int(numel))

    @staticmethod
    def _bound(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> int:
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        return 0 if 0 in size else last + 1

    def _tensor(self, storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
        if min((offset, *size, *stride)) < 0 or self._bound(storage, offset, size, stride) > len(
            storage
        ):
            raise CheckpointError("a tensor reaches outside its storage")
        return torch.as_strided(storage, tuple(size), tuple(stride), offset)

    def _parameter(self, data: Any, *_: object) -> Any:
        return data


def _load_zip(archive: zipfile.ZipFile) -> Any:
    entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    if "data.pkl" not in entries or "constants.pkl" in entries:
        raise CheckpointError("this zip archive is no checkpoint (TorchScript is not read)")
    if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
        raise CheckpointError("a big-endian checkpoint is not supported")
    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if key not in storages:
            data = bytearray(archive.read(entries[f"data/{key}"]))
            if len(data) < numel * dtype.itemsize:
                raise CheckpointError(f"storage {key} is truncated")
            storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0)
        return storages[key].view(dtype)

    return _TorchUnpickler(io.BytesIO(archive.read(entries["data.pkl"])), storage).load()


def _load_flat(file: io.BufferedIOBase, file_size: int) -> Any:
    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if numel * dtype.itemsize > file_size:
            raise CheckpointError(f"storage {key} is larger than the file")
        return storages.setdefault(key, torch.empty(numel, dtype=dtype))

    def load() -> Any:
        return _TorchUnpickler(file, storage).load()

    if load() != _LEGACY_MAGIC:
        raise CheckpointError("this is not a PyTorch checkpoint")
    _protocol, _system, value, keys = load(), load(), load(), load()
    for key in keys:  # the bytes of the storages, in this order
        flat = storages[str(key)]
        numel = int.from_bytes(file.read(8), "little")
        data = bytearray(file.read(numel * flat.dtype.itemsize))
        if numel != len(flat) or len(data) < flat.nbytes:
            raise CheckpointError(f"storage {key} is truncated")
        if data:
            flat.copy_(torch.frombuffer(data, dtype=flat.dtype))
    return value


class _ArrayUnpickler(_Unpickler):
    """Reads the arrays that joblib stores out of line.

    That is the pickle of a ``NumpyArrayWrapper`` (type, shape, order), then the raw bytes, then the
    pickle goes on. The bytes begin where BUILD sets the wrapper's state, so they are taken from the
    file at that moment. This relies on the unpickler reading no further than it must, which it does
    from a file without ``peek``; where joblib writes frames (protocol 4 and above) it ends one just
    before the bytes.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """Find the wrapper too."""
        if name != "NumpyArrayWrapper":
            return super().find_class(module, name)

        def take(stub: Stub, state: Any) -> None:
            stub.state = _raw_array(self._file, state)

        return type("Stub", (Stub,), {"__setstate__": take})


def _raw_array(file: io.BytesIO, state: Any) -> NDArray[Any]:
    """Read the bytes that follow joblib's wrapper of an array."""
    dtype = _dtype(state["dtype"])
    if dtype is None:  # an array of Python objects is a pickle inside the pickle; skip it
        _ArrayUnpickler(file).load()
        return np.empty(0)
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(int.from_bytes(file.read(1), "little"))
    shape = tuple(int(length) for length in state["shape"])
    count = math.prod(shape) * dtype.itemsize
    if not 0 <= count <= len(file.getbuffer()) - file.tell():
        raise ValueError(f"an array of {count} bytes is cut short")
    return _shaped(np.frombuffer(file.read(count), dtype), shape, state["order"])


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any] | None:
    """Return an array of its bytes; None of one of Python objects."""
    kind = _dtype(dtype)
    return None if kind is None else _shaped(np.frombuffer(bytes(data), kind), shape, order)


def _shaped(flat: NDArray[Any], shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return flat.reshape(shape[::-1]).T if order == "F" else flat.reshape(shape)


def _dtype(value: Any) -> np.dtype[Any] | None:
    """Return the type recorded by ``numpy.dtype('f4', ...)`` and its state; None for objects."""
    if not isinstance(value, Stub) or not value.args:
        raise ValueError("the type of an array is missing")
    kind = str(value.args[0])
    if kind.startswith("O"):
        return None
    if kind[:1] not in "fiub" or not kind[1:].isdigit():
        raise ValueError(f"an array has the type {kind}")
    order = value.state[1] if isinstance(value.state, tuple) else "="
    return np.dtype(f"{order}{kind}" if order in ("<", ">") else kind)
