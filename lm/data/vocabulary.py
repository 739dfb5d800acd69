"""The one object that owns every token id: special tokens, tasks, classes, text, units and codes.

Blocks lie one after the other, in this order, and nobody else adds an offset:

    special   <pad> <bos> <eos> …          task      <task:asr> …
    language  <language:de> …              gender    <gender:f> …
    speaker   <speaker:p225> …             text      bytes, characters or subwords
    unit      raw units or unit subwords   code/0 … code/Q-1   a codec's levels, coarsest first

Languages, genders and speakers are tokens, so that a task may read them as a condition or predict
them as a target (language and gender identification, PolySpeech, arXiv 2406.07801).
"""

import bisect
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from unitone import files
from unitone.errors import CheckpointError, ConfigError, choices

FORMAT = 1
FILE_NAME = "vocabulary.json"

REQUIRED_SPECIALS = ("pad", "bos", "eos", "sep")
SPECIALS = (*REQUIRED_SPECIALS, "mask", "blank", "text", "unit", "code")
"""Padding, start, end, end of the condition; hidden position; CTC blank; what follows is text …"""

Ids = TypeVar("Ids", int, list[int], np.ndarray, Tensor)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A run of token ids: ``start`` to ``start + size - 1``."""

    name: str
    start: int
    size: int
    labels: tuple[str, ...] = ()
    """Names of the ids, where they have any: ``de`` in block ``language`` is ``<language:de>``."""

    @property
    def end(self) -> int:
        """First token id after the block."""
        return self.start + self.size

    def encode(self, ids: Ids) -> Ids:
        """Turn ids of this block (0..size-1) into tokens, in the form they came in.

        Raises:
            ValueError: an id is not in 0..size-1. (For a tensor on a GPU the check waits for it.)
        """
        self._check("id", ids, 0, self.size)
        return _shift(ids, self.start)

    def decode(self, tokens: Ids) -> Ids:
        """Turn tokens of this block into its ids 0..size-1, in the form they came in.

        Raises:
            ValueError: a token belongs to another block.
        """
        self._check("token", tokens, self.start, self.end)
        return _shift(tokens, -self.start)

    def __contains__(self, token: int) -> bool:
        return self.start <= token < self.end

    def _check(self, what: str, values: Ids, low: int, high: int) -> None:
        array = values.detach() if isinstance(values, Tensor) else np.asarray(values)
        if 0 in array.shape:
            return
        smallest, largest = int(array.min()), int(array.max())
        if smallest < low or largest >= high:
            wrong = smallest if smallest < low else largest
            span = f"{low}..{high - 1}" if self.size else "an empty range"
            raise ValueError(f"{what} {wrong} is not in block {self.name!r}, which has {span}")


def _shift(values: Ids, offset: int) -> Ids:
    if isinstance(values, list):
        return [value + offset for value in values]
    return values + offset


class Vocabulary:
    """Immutable; made by ``build`` or ``load``. Equal vocabularies have equal ``hash``."""

    def __init__(self, sizes: Mapping[str, int | Sequence[str]], *, passport: str | None) -> None:
        """Lay the blocks out in the order given: a size, or the labels of the ids."""
        blocks: dict[str, Block] = {}
        start = 0
        for name, content in sizes.items():
            size = content if isinstance(content, int) else len(content)
            labels = () if isinstance(content, int) else tuple(content)
            _check_block(name, size, labels)
            blocks[name] = Block(name=name, start=start, size=size, labels=labels)
            start += size
        self._blocks = blocks
        self._starts = [block.start for block in self if block.size]
        self._filled = [block for block in self if block.size]
        self._size = start
        self._ids = {
            _spell(block, label): block.start + number
            for block in self
            for number, label in enumerate(block.labels)
        }
        self.passport = passport
        """Hash of the tokenizer passport that the text and unit ids belong to, if they have one."""
        for name in REQUIRED_SPECIALS:
            if f"<{name}>" not in self._ids:
                raise ConfigError(f"the vocabulary needs the special token <{name}>")
        self.pad_id = self._ids["<pad>"]
        self.bos_id = self._ids["<bos>"]
        self.eos_id = self._ids["<eos>"]
        self.hash = hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()
        """SHA-256 of the content, the passport included."""

    @classmethod
    def build(
        cls,
        *,
        text: int = 0,
        units: int = 0,
        codes: Sequence[int] = (),
        tasks: Sequence[str] = (),
        languages: Sequence[str] = (),
        genders: Sequence[str] = (),
        speakers: Sequence[str] = (),
        special: Sequence[str] = SPECIALS,
        passport: str | None = None,
    ) -> "Vocabulary":
        """Lay out a vocabulary.

        Args:
            text: ids of the text tokenizer, its ``size``.
            units: k for raw units, ``num_subwords`` for unit subwords.
            codes: codebook size of each codec level.
            tasks: names, as in the task table; labels without the brackets.
            languages: codes as the corpus writes them.
            genders: classes as the corpus writes them.
            speakers: names of the speakers that get a token.
            special: ``pad``, ``bos``, ``eos``, ``sep`` and what the models need beyond.
            passport: hash of the tokenizer passport; ``require_passport`` compares with it.
        """
        sizes: dict[str, int | Sequence[str]] = {
            "special": special,
            "task": tasks,
            "language": languages,
            "gender": genders,
            "speaker": speakers,
            "text": text,
            "unit": units,
        }
        sizes |= {f"code/{level}": size for level, size in enumerate(codes)}
        return cls(sizes, passport=passport)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{block.name}={block.size}" for block in self._filled)
        return f"Vocabulary({len(self)} tokens: {sizes})"

    def block(self, name: str) -> Block:
        """Return the block with a name: ``special``, ``text``, ``unit``, ``code/0`` and so on."""
        try:
            return self._blocks[name]
        except KeyError:
            raise ConfigError(f"no block {name!r}; there are {', '.join(self._blocks)}") from None

    @property
    def codes(self) -> tuple[Block, ...]:
        """The blocks of the codec's levels, coarsest first."""
        return tuple(block for block in self if block.name.startswith("code/"))

    def id(self, name: str) -> int:
        """Return the token with a name: ``id("<eos>")``, ``id("<task:asr>")``."""
        try:
            return self._ids[name]
        except KeyError:
            kind, _, _ = name.strip("<>").partition(":")
            block = self._blocks.get(kind) or self._blocks["special"]
            known = choices(name, [_spell(block, label) for label in block.labels])
            raise ConfigError(f"no token {name!r}; block {block.name!r} has {known}") from None

    def block_of(self, token: int) -> str:
        """Return the name of the block that a token belongs to."""
        return self._owner(token).name

    def describe(self, token: int) -> str:
        """Return a token as people read it: ``<task:asr>``, ``text:17``, ``code/0:512``."""
        block = self._owner(token)
        number = token - block.start
        return _spell(block, block.labels[number]) if block.labels else f"{block.name}:{number}"

    def allowed(self, *names: str) -> Bool[Tensor, "V"]:
        """Return True at the tokens of the blocks and the single tokens named, on the CPU.

        ``allowed("unit", "<eos>")`` is what a model may emit while it speaks units.
        """
        mask = torch.zeros(len(self), dtype=torch.bool)
        for name in names:
            if name.startswith("<"):
                mask[self.id(name)] = True
            else:
                block = self.block(name)
                mask[block.start : block.end] = True
        return mask

    def require_passport(self, passport: str, *, of: str) -> None:
        """Refuse an artifact whose tokenizer is not the one this vocabulary was made for.

        Raises:
            ConfigError: the hashes differ; ``of`` names the artifact in the message.
        """
        if passport != self.passport:
            raise ConfigError(
                f"{of} was made with tokenizer {passport[:12]}, this vocabulary with "
                f"{self.passport[:12] if self.passport else 'none'}: their ids mean different "
                "things; use the tokenizer directory that lies beside the model"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the content as plain JSON values."""
        blocks: list[dict[str, Any]] = []
        for block in self:
            entry: dict[str, Any] = {"name": block.name, "start": block.start, "size": block.size}
            if block.labels:
                entry["labels"] = list(block.labels)
            blocks.append(entry)
        return {"format": FORMAT, "size": len(self), "passport": self.passport, "blocks": blocks}

    @classmethod
    def from_json(cls, value: Any) -> "Vocabulary":
        """Rebuild a vocabulary; anything unknown, missing or contradictory is an error.

        Raises:
            CheckpointError: ``value`` is not what ``to_json`` writes.
        """
        _check_keys("vocabulary", value, {"format", "size", "passport", "blocks"})
        if value["format"] != FORMAT:
            raise CheckpointError(
                f"vocabulary format {value['format']}; this version reads {FORMAT}"
            )
        sizes: dict[str, int | Sequence[str]] = {}
        try:
            for entry in value["blocks"]:
                _check_keys("block", entry, {"name", "start", "size"}, optional={"labels"})
                if not isinstance(entry["name"], str):
                    raise ConfigError(f"block {entry['name']!r}")
                sizes[entry["name"]] = entry.get("labels", entry["size"])
            made = cls(sizes, passport=value["passport"])
            if not isinstance(made.passport, str | None):
                raise ConfigError(f"passport {made.passport!r}")
        except (ConfigError, TypeError, AttributeError) as error:
            raise CheckpointError(f"this is not a vocabulary: {error}") from error
        if made.to_json() != value:
            raise CheckpointError("the blocks of the vocabulary overlap, leave gaps or miscount")
        return made

    def save(self, directory: Path) -> None:
        """Write ``vocabulary.json`` into a model directory."""
        files.write_json(directory / FILE_NAME, self.to_json())

    @classmethod
    def load(cls, directory: Path | str) -> "Vocabulary":
        """Read ``vocabulary.json`` from a model directory."""
        path = Path(directory) / FILE_NAME
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: missing; not a model directory?") from error
        except (CheckpointError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}") from error

    def _owner(self, token: int) -> Block:
        if not 0 <= token < len(self):
            raise ValueError(f"token {token} is not in the vocabulary, 0..{len(self) - 1}")
        return self._filled[bisect.bisect_right(self._starts, token) - 1]


def _spell(block: Block, label: str) -> str:
    return f"<{label}>" if block.name == "special" else f"<{block.name}:{label}>"


def _check_block(name: str, size: int, labels: tuple[str, ...]) -> None:
    if size < 0:
        raise ConfigError(f"the size of block {name!r} must be 0 or more, got {size}")
    if len(set(labels)) != len(labels):
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        raise ConfigError(f"block {name!r} names {', '.join(repeated)} more than once")
    forbidden = set("<>:" if name == "special" else "<>")  # <a:b> is id b of block a
    for label in labels:
        if not label or forbidden & set(label):
            characters = " ".join(sorted(forbidden))
            raise ConfigError(
                f"{label!r} cannot name a token in block {name!r}: it is empty or has {characters}"
            )


def _check_keys(
    what: str, value: Any, required: set[str], *, optional: frozenset[str] | set[str] = frozenset()
) -> None:
    if not isinstance(value, dict):
        raise CheckpointError(f"a {what} must be a JSON object, got {type(value).__name__}")
    for key in sorted(value.keys() - required - optional):
        raise CheckpointError(f"unknown key {key!r} in the {what}")
    for key in sorted(required - value.keys()):
        raise CheckpointError(f"the {what} has no {key!r}")
