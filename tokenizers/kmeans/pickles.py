"""Read the arrays of a pickle of scikit-learn and numpy objects, running nothing of it.

A pickle is a program: it names functions and calls them. Here every name resolves to ``_Inert``,
which records what it is called with and does nothing, so a hostile file comes to no more than a
tree of records. ``read_pickle`` then reads the arrays off that tree.

joblib stores an array out of line: the pickle of a ``NumpyArrayWrapper`` (type, shape, order),
then the raw bytes, then the pickle goes on. The bytes begin where BUILD sets the wrapper's state,
so ``_Inert.__setstate__`` takes them from the file at that moment. This relies on the unpickler
reading no further than it must, which it does from a file without ``peek``; where joblib writes
frames (protocol 4 and above) it ends one just before the bytes.
"""

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DEEPEST = 32
"""Levels of nesting that are searched for arrays."""


class ForeignPickleError(Exception):
    """The pickle is damaged, or stores its arrays in a way that is not known here."""


def read_pickle(data: bytes) -> Any:
    """Return what the pickle holds: arrays, plain values, and objects as their attributes.

    Raises:
        ForeignPickleError: The pickle cannot be read.
    """
    file = _Bytes(data)
    try:
        return _plain(_unpickle(file), depth=0)
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, ValueError, KeyError, IndexError),
        *(TypeError, OverflowError, MemoryError, RecursionError, UnicodeError),
    ) as error:
        raise ForeignPickleError(f"it is no pickle of a k-means model ({error})") from error


class _Bytes:
    """A file in memory that offers the unpickler no look-ahead."""

    def __init__(self, data: bytes) -> None:
        file = io.BytesIO(data)
        self.size = len(data)
        self.read: Callable[[int], bytes] = file.read
        self.readline: Callable[[], bytes] = file.readline
        self.tell: Callable[[], int] = file.tell


class _Inert:
    """Stands for any class, function or object of the pickle; every use of it is only recorded."""

    name = ""
    file: _Bytes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs
        self.state: Any = None
        self.array: NDArray[Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        made = super().__new__(cls)
        made.__init__(*args, **kwargs)  # type: ignore[misc]  # NEWOBJ calls __new__ alone
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state
        if self.name.endswith(".NumpyArrayWrapper"):
            self.array = _raw_array(self.file, state)

    def __call__(self, *args: Any, **kwargs: Any) -> "_Inert":
        return type(self)(*args, **kwargs)

    def append(self, item: Any) -> None:
        """Drop an item of a list-like object: no array we look for is kept in one."""

    def extend(self, items: Any) -> None:
        """Drop the items of a list-like object."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a dictionary-like object."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: _Bytes) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """Return a fresh inert class, whatever the pickle asks for; nothing is imported."""
        return type("_Named", (_Inert,), {"name": f"{module}.{name}", "file": self._file})

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to what lies outside the file."""
        raise pickle.UnpicklingError(f"it refers to an outside object {pid!r}")


def _unpickle(file: _Bytes) -> Any:
    return _Unpickler(file).load()


def _raw_array(file: _Bytes, state: Any) -> NDArray[Any]:
    """Read the bytes that follow joblib's wrapper of an array."""
    dtype = _dtype(state["dtype"])
    if dtype is None:  # an array of Python objects is a pickle inside the pickle; skip it
        _unpickle(file)
        return np.empty(0)
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(int.from_bytes(file.read(1), "little"))
    shape = tuple(int(length) for length in state["shape"])
    return _array(_exactly(file, math.prod(shape) * dtype.itemsize), dtype, shape, state["order"])


def _exactly(file: _Bytes, count: int) -> bytes:
    if not 0 <= count <= file.size - file.tell():
        raise ValueError(f"an array of {count} bytes is cut short")
    return file.read(count)


def _array(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> NDArray[Any]:
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape[::-1]).T if order == "F" else flat.reshape(shape)


def _dtype(value: Any) -> np.dtype[Any] | None:
    """Return the type recorded by ``numpy.dtype('f4', ...)`` and its state; None for objects."""
    if not isinstance(value, _Inert) or not value.args:
        raise ValueError("the type of an array is missing")
    kind = str(value.args[0])
    if kind.startswith("O"):
        return None
    if kind[:1] not in "fiub" or not kind[1:].isdigit():
        raise ValueError(f"an array has the type {kind}")
    order = value.state[1] if isinstance(value.state, tuple) else "="
    return np.dtype(f"{order}{kind}" if order in ("<", ">") else kind)


def _plain(value: Any, *, depth: int) -> Any:
    """Turn records into arrays where they are arrays, and objects into their attributes."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: _plain(item, depth=depth + 1) for key, item in value.items()}
    if not isinstance(value, _Inert):
        return value
    if value.array is not None:
        return value.array
    if value.name.endswith("multiarray._reconstruct"):
        return _reconstructed(value.state)
    if value.name.endswith("numeric._frombuffer"):
        data, dtype, shape, order = value.args[:4]
        kind = _dtype(dtype)
        return None if kind is None else _array(bytes(data), kind, tuple(shape), order)
    return _plain(value.state, depth=depth + 1)


def _reconstructed(state: Any) -> NDArray[Any] | None:
    """Return the array with the state ``(version, shape, type, is_fortran, bytes)``."""
    _, shape, dtype, is_fortran, data = state
    kind = _dtype(dtype)
    if kind is None:
        return None
    if isinstance(data, _Inert):  # protocol 2: bytes as a latin-1 string through _codecs.encode
        data = str(data.args[0]).encode("latin-1")
    return _array(bytes(data), kind, tuple(shape), "F" if is_fortran else "C")
