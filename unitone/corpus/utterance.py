"""The record of one utterance, as every reader makes it and every stage uses it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from unitone.corpus.audio import Clip

Label = tuple[str, float, float]
"""Symbol, start and end in seconds."""
LONGEST_NAME = 200
"""Characters of a file name before a hash replaces its end; most file systems allow 255 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One stretch of speech and what is known about it."""

    id: str
    line: int
    """1-based line of the manifest."""
    audio: Path | None
    start: float = 0.0
    """Seconds."""
    duration: float | None = None
    """Seconds to read; None = to the end of the file."""
    stated_duration: float | None = None
    """Seconds the manifest claims; of a whole recording, compared with its samples."""
    channel: int | None = None
    text: str | None = None
    translation: Mapping[str, str] = field(default_factory=dict)
    """Language code → text; ``und`` where the manifest doesn't name the language."""
    language: str | None = None
    speaker: str | None = None
    gender: str | None = None
    split: str | None = None
    labels: tuple[Label, ...] = ()
    """Time-aligned phones or characters: symbol, start, end in seconds."""
    cut: Any = None
    """The Lhotse cut itself where its audio is not a plain file (mixed, command), or where it lies
    (Shar); `unitone.corpus.stored_cuts.loaded` gives the cut."""

    def skipped(self, reason: str) -> "Skipped":
        """Return the record of why this utterance wasn't used."""
        return Skipped(id=self.id, line=self.line, reason=reason)

    @property
    def clip(self) -> Clip:
        """Where the waveform is."""
        assert self.audio is not None
        whole = not self.start and self.duration is None
        return Clip(
            path=self.audio,
            start=self.start,
            duration=self.duration,
            channel=self.channel,
            expected=self.stated_duration if whole else None,
        )


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An utterance or a manifest line that could not be used, and why."""

    line: int
    reason: str
    id: str | None = None

    def to_json(self) -> dict[str, str | int | None]:
        """Return the record as ``skipped.jsonl`` has it."""
        return {"id": self.id, "line": self.line, "reason": self.reason}


Entry = Utterance | Skipped


class Row(NamedTuple):
    """A line of a manifest before its fields are looked at, but for those that a draw goes by.

    A tuple: a draw makes millions of them and looks into few.
    """

    id: str | None
    """None where it can't be told; then ``entry`` says why."""
    seconds: float | None
    """As stated, unchecked; None where it isn't."""
    split: Any
    """A text or None, unchecked; anything else where only ``entry`` tells."""
    entry: Callable[[], Entry]
    """Check all fields: the utterance, or why there is none."""


def file_name(utterance_id: str, suffix: str) -> str:
    """Return a file name for an id: percent-encoded, cut with a hash where it gets too long."""
    name = quote(utterance_id, safe=" ()+,=@[]{}")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(utterance_id.encode()).hexdigest()[:16]
        name = f"{name[:LONGEST_NAME]}-{digest}"
    return name + suffix
