"""Read a PyTorch pickle without executing anything in it.

Checkpoints of fairseq and unilm mix tensors with objects of classes that need not be installed
(omegaconf, argparse, fairseq), so ``torch.load(weights_only=True)`` refuses them, and a plain
``torch.load`` runs whatever the file says. Here only tensors and plain containers come to life; any
other class or function that the pickle names becomes an inert ``Stub`` that keeps its state.

Both file forms are read: the zip archive (PyTorch 1.6 and later) and the older flat stream.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitone.errors import CheckpointError

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
_CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("torch", "Size"): tuple,
}


class Stub:
    """Stands for an object of a class that is not trusted; keeps its state, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "Stub":
        """Accept any arguments, as a pickle may call it as a class or as a function."""
        stub = super().__new__(cls)
        stub.state = {}
        stub.items = {}
        return stub

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.state: Any
        self.items: dict[Any, Any]

    def __setstate__(self, state: object) -> None:
        """Keep what the pickle would have restored."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Take an item of a dictionary-like object."""
        self.items[key] = value

    def append(self, value: object) -> None:
        """Take and forget an item of a list-like object."""

    def extend(self, values: object) -> None:
        """Take and forget items of a list-like object."""


def plain(value: object) -> Any:
    """Turn stubs of ``argparse.Namespace`` and omegaconf into dictionaries and values."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, Stub):
        return value
    state = value.state
    if isinstance(state, dict) and "_content" in state:  # omegaconf's DictConfig and ListConfig
        return plain(state["_content"])
    if isinstance(state, dict) and "_val" in state:  # omegaconf's nodes
        return plain(state["_val"])
    return plain(state) if isinstance(state, dict) else None


def load(path: Path) -> Any:
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


class _Unpickler(pickle.Unpickler):
    """Finds tensors and containers; every other name is a fresh ``Stub`` class."""

    def __init__(
        self, file: io.BufferedIOBase, storage: Callable[[str, torch.dtype, int], Tensor]
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: what is not listed here is not reachable from a pickle."""
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and name in _DTYPE_NAMES:
            return _DTYPE_NAMES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._parameter
        # Bound methods and built-in types cannot be altered by a pickle's BUILD; a stub is new.
        return _CONTAINERS.get((module, name)) or type(name, (Stub,), {"__module__": "stub"})

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

    return _Unpickler(io.BytesIO(archive.read(entries["data.pkl"])), storage).load()


def _load_flat(file: io.BufferedIOBase, file_size: int) -> Any:
    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if numel * dtype.itemsize > file_size:
            raise CheckpointError(f"storage {key} is larger than the file")
        return storages.setdefault(key, torch.empty(numel, dtype=dtype))

    if _Unpickler(file, storage).load() != _LEGACY_MAGIC:
        raise CheckpointError("this is not a PyTorch checkpoint")
    _protocol, _system = _Unpickler(file, storage).load(), _Unpickler(file, storage).load()
    value = _Unpickler(file, storage).load()
    for key in _Unpickler(file, storage).load():  # the bytes of the storages, in this order
        flat = storages[str(key)]
        numel = int.from_bytes(file.read(8), "little")
        data = bytearray(file.read(numel * flat.dtype.itemsize))
        if numel != len(flat) or len(data) < flat.nbytes:
            raise CheckpointError(f"storage {key} is truncated")
        if data:
            flat.copy_(torch.frombuffer(data, dtype=flat.dtype))
    return value
