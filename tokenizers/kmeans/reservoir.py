"""A uniform sample of the frames of a corpus in bounded memory, the training set of k-means.

Bottom-k sampling: each frame has a random 64-bit priority and the ``capacity`` frames with the
smallest priorities are kept. The priority of frame t of an utterance is the t-th output of the
random stream that belongs to the seed and the utterance's id, so it depends neither on the order
in which utterances come, nor on how a long one is cut, nor on how many workers share the corpus.
With `even_priorities` each utterance gives the same share of its frames.

Axes: T frames of one piece of an utterance, D width. Runs on the CPU, in numpy.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt64
from numpy.typing import NDArray

from unitone import seeding
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.files import replacing

_SLACK = 0.08
"""Rows allocated beyond the capacity, as a share of it; selection runs each time they are full."""
_COLUMNS = 64
"""Columns that are sorted at once, so that sorting needs 64/D of a second copy."""


class Reservoir:
    """The ``capacity`` frames of smallest priority among all those offered to ``add``.

    It allocates ``1.08 * capacity * dim * 4`` bytes, which the system hands out as they fill.
    """

    def __init__(self, *, capacity: int, dim: int, seed: int) -> None:
        if capacity < 1 or dim < 1:
            raise ConfigError(
                f"a reservoir needs a capacity and a width of at least 1, got {capacity} and {dim}"
            )
        self.capacity = capacity
        self.dim = dim
        self.seed = seed
        self.seen = 0
        """Frames offered so far."""
        self.metadata: dict[str, str] = {}
        """Kept by ``save``; for the caller, e.g. how far a pass over the corpus has come."""
        rows = capacity + max(1, min(4096, capacity), int(_SLACK * capacity))
        self._features = np.empty((rows, dim), dtype=np.float32)
        self._priorities = np.empty(rows, dtype=np.uint64)
        self._filled = 0
        self._limit: np.uint64 | None = None  # what is not below can no longer enter

    def add(
        self,
        utterance: str,
        features: Float32[np.ndarray, "T D"],
        *,
        offset: int = 0,
        priorities: UInt64[np.ndarray, "T"] | None = None,
    ) -> None:
        """Offer the frames of an utterance, or of a piece of it.

        Args:
            utterance: Id, unique in the corpus; the same id always draws the same priorities.
            features: The frames.
            offset: Index within the utterance of the first of them.
            priorities: Theirs, out of `even_priorities`; default: each frame's own draw.

        Raises:
            ConfigError: The features have another width than the reservoir.
            CorpusError: A feature is NaN or infinite.
        """
        if features.shape[1] != self.dim:
            raise ConfigError(
                f"utterance {utterance!r} has features of width {features.shape[1]}, "
                f"the reservoir holds width {self.dim}"
            )
        if offset < 0:
            raise ConfigError(f"offset must be at least 0, got {offset}")
        if not np.isfinite(features).all():
            frame = offset + int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise CorpusError(
                f"utterance {utterance!r}: frame {frame} has a NaN or infinite feature; "
                "listen to the recording and leave it out if it is damaged"
            )
        if priorities is None:
            priorities = _priorities(self.seed, utterance, start=offset, count=len(features))
        self._offer(priorities, features)
        self.seen += len(features)

    def merge(self, other: "Reservoir") -> None:
        """Take in what another worker sampled from its own utterances; ``other`` stays as it is.

        Raises:
            ConfigError: The two differ in capacity, width or seed.
        """
        for name in ("capacity", "dim", "seed"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                raise ConfigError(f"cannot merge reservoirs with {name} {mine} and {its}")
        self._offer(other._priorities[: other._filled], other._features[: other._filled])
        self.seen += other.seen

    def drop_above(self, share: float) -> None:
        """Forget the frames whose priority lies above ``share`` of the range of priorities.

        A worker that knows about which share of the corpus's frames will be kept in the end sends
        only those. The merged sample is exact as long as ``capacity`` frames are left in it.
        """
        if share >= 1.0:
            return
        kept = np.flatnonzero(self._priorities[: self._filled] < np.uint64(share * 2**64))
        self._priorities[: len(kept)] = self._priorities[kept]
        self._features[: len(kept)] = self._features[kept]
        self._filled = len(kept)

    @property
    def is_exact(self) -> bool:
        """Whether ``capacity`` frames, or all there were, are held."""
        return self._filled >= min(self.capacity, self.seen)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the rows in use only: a worker's answer is as small as its work."""
        used = slice(0, self._filled)
        return {
            **self.__dict__,
            "_features": self._features[used],
            "_priorities": self._priorities[used],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            capacity=state["capacity"], dim=state["dim"], seed=state["seed"]
        )
        used = slice(0, state["_filled"])
        self._features[used], self._priorities[used] = state["_features"], state["_priorities"]
        rest = {k: v for k, v in state.items() if k not in ("_features", "_priorities")}
        self.__dict__.update(rest)

    def sample(self) -> Float32[np.ndarray, "T D"]:
        """Return the frames kept, by increasing priority, which is a random order.

        The array is the reservoir's own memory, sorted in place: the next ``add`` writes into it.
        """
        self._select()
        count = self._filled
        order = np.argsort(self._priorities[:count], kind="stable")
        self._priorities[:count] = self._priorities[order]
        for start in range(0, self.dim, _COLUMNS):
            columns = self._features[:count, start : start + _COLUMNS]
            columns[...] = columns[order]
        return self._features[:count]

    def save(self, path: Path) -> None:
        """Write the state as safetensors, whole or not at all, without a copy in memory."""
        self._select()
        arrays: dict[str, NDArray[Any]] = {
            "priorities": self._priorities[: self._filled],
            "features": self._features[: self._filled],
        }
        state = {"capacity": self.capacity, "dim": self.dim, "seed": self.seed, "seen": self.seen}
        metadata = {name: str(value) for name, value in state.items()}
        metadata["metadata"] = json.dumps(self.metadata)
        with replacing(path) as temporary:
            _write_safetensors(temporary, arrays, metadata)

    @classmethod
    def load(cls, path: Path) -> "Reservoir":
        """Read back what ``save`` wrote; going on gives what an uninterrupted pass would give.

        Raises:
            CheckpointError: The file is not a reservoir, or is cut short.
        """
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > path.stat().st_size:
                    raise ValueError("the header is damaged")
                header = json.loads(file.read(length))
                state = header["__metadata__"]
                loaded = cls(
                    capacity=int(state["capacity"]),
                    dim=int(state["dim"]),
                    seed=int(state["seed"]),
                )
                loaded.seen = int(state["seen"])
                loaded.metadata = json.loads(state["metadata"])
                loaded._filled = int(header["priorities"]["shape"][0])
                for array in (loaded._priorities, loaded._features):
                    data = array[: loaded._filled].reshape(-1).view(np.uint8).data
                    if file.readinto(data) != len(data):
                        raise ValueError("the file is cut short")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CheckpointError(
                f"{path} is not a sample of frames that can be resumed ({error}); "
                "delete it to sample again"
            ) from error
        if loaded._filled == loaded.capacity:
            loaded._limit = loaded._priorities[: loaded._filled].max()
        return loaded

    def _offer(
        self, priorities: UInt64[np.ndarray, "T"], features: Float32[np.ndarray, "T D"]
    ) -> None:
        """Append the frames that may be among the smallest; make room when the rows are full."""
        start = 0
        while start < len(priorities):
            stop = min(len(priorities), start + len(self._priorities) - self._filled)
            block = priorities[start:stop]
            chosen = (
                np.arange(start, stop)
                if self._limit is None
                else (start + np.flatnonzero(block < self._limit))
            )
            end = self._filled + len(chosen)
            self._priorities[self._filled : end] = priorities[chosen]
            self._features[self._filled : end] = features[chosen]
            self._filled = end
            if self._filled == len(self._priorities):
                self._select()
            start = stop

    def _select(self) -> None:
        """Drop all but the ``capacity`` smallest; the rows kept fill the holes of those dropped."""
        if self._filled <= self.capacity:
            return
        order = np.argpartition(self._priorities[: self._filled], self.capacity - 1)
        keep, drop = order[: self.capacity], order[self.capacity :]
        self._limit = np.uint64(self._priorities[keep[-1]])
        moved, holes = keep[keep >= self.capacity], drop[drop < self.capacity]
        self._priorities[holes] = self._priorities[moved]
        self._features[holes] = self._features[moved]
        self._filled = self.capacity


def even_priorities(seed: int, utterance: str, count: int) -> UInt64[np.ndarray, "T"]:
    """Return priorities of the frames of an utterance that are spread evenly over their range.

    Whatever share of the range is kept, that share of the frames is, rounded up or down: no
    utterance gives more of its frames than another. Each by itself is as uniform as ever.
    """
    drawn = _priorities(seed, utterance, start=0, count=count)
    width = np.uint64(2**64 // max(count, 1) - 1)
    ranks = np.empty(count, np.uint64)
    ranks[np.argsort(drawn)] = np.arange(count, dtype=np.uint64)
    return ranks * width + drawn % width


def _priorities(seed: int, utterance: str, *, start: int, count: int) -> UInt64[np.ndarray, "T"]:
    """Return outputs ``start`` to ``start + count`` of the utterance's random stream."""
    generator = seeding.stream(seed, "frames", utterance).bit_generator
    assert isinstance(generator, np.random.Philox)
    blocks, skipped = divmod(start, 4)  # Philox makes four outputs a step
    generator.advance(blocks)
    return generator.random_raw(skipped + count)[skipped:]


def _write_safetensors(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write float32 and uint64 arrays. The safetensors package would first copy them to bytes."""
    names = {np.dtype(np.float32): "F32", np.dtype(np.uint64): "U64"}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format asks for aligned data
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)
