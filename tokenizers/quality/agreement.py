"""What units know about labels: purity and PNMI of the frames that carry both.

Phone purity, cluster purity and PNMI follow Hsu et al. 2021 (HuBERT), arXiv 2106.07447, section
IV-A, with natural logarithms. Differences from the published script: a zero count adds 0 rather
than a small epsilon, and a frame takes the label at its center, so that any two frame rates fit.
Axes: T frames, Y labels, K clusters.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64

Labels = tuple[tuple[str, float, float], ...]
"""(symbol, start in seconds, end in seconds)."""

_MAX_CELLS = 1 << 26
"""Cells of a label-unit table, 512 MB; labels that would exceed it are counted as one."""
_OTHER = "(other)"
_STRESSED = re.compile(r"^([A-Z]{2})[0-2]$")  # ARPAbet vowel: AH0 and AH1 are one phone


@dataclass(frozen=True, kw_only=True)
class LabelQuality:
    frames: int
    """Frames that carry a label."""
    label_purity: float
    """Share of frames whose label is the commonest of their unit ("phone purity")."""
    cluster_purity: float
    """Share of frames whose unit is the commonest of their label."""
    pnmi: float
    """I(y; z) / H(y): the share of what there is to know about the label that the unit tells."""
    label_entropy: float
    """H(y), nats."""
    unit_entropy: float
    """H(z), nats, over the labeled frames."""

    def to_json(self) -> dict[str, int | float]:
        """Return plain values, units in the names."""
        return {
            "frames": self.frames,
            "label_purity": self.label_purity,
            "cluster_purity": self.cluster_purity,
            "pnmi": self.pnmi,
            "label_entropy_nats": self.label_entropy,
            "unit_entropy_nats": self.unit_entropy,
        }


def entropy(counts: Int[np.ndarray, "..."]) -> float:
    """Return the entropy of a table of counts, in nats."""
    filled = counts[counts > 0].astype(np.float64)
    p = filled / filled.sum()
    return float(-(p * np.log(p)).sum()) + 0.0  # never -0.0


def label_quality(table: Int[np.ndarray, "Y K"]) -> LabelQuality:
    """Compare labels and units by the frames they share; with one label only, PNMI is 0."""
    frames = table.sum()
    label_entropy = entropy(table.sum(axis=1))
    unit_entropy = entropy(table.sum(axis=0))
    information = label_entropy + unit_entropy - entropy(table)
    return LabelQuality(
        frames=int(frames),
        label_purity=float(table.max(axis=0).sum() / frames),
        cluster_purity=float(table.max(axis=1).sum() / frames),
        pnmi=information / label_entropy if label_entropy else 0.0,
        label_entropy=label_entropy,
        unit_entropy=unit_entropy,
    )


def frame_labels(labels: Labels, *, num_frames: int, frame_rate: float) -> list[str | None]:
    """Return the label at the center of every frame, None where there is none."""
    ordered = sorted(labels, key=lambda label: label[1])
    starts = np.array([start for _, start, _ in ordered])
    centers = (np.arange(num_frames) + 0.5) / frame_rate
    places = np.searchsorted(starts, centers, side="right") - 1
    return [
        _STRESSED.sub(r"\1", ordered[place][0])
        if place >= 0 and center < ordered[place][2]
        else None
        for place, center in zip(places.tolist(), centers.tolist(), strict=True)
    ]


def spread_characters(text: str, *, num_frames: int) -> list[str]:
    """Give every letter and digit of ``text``, in lower case, an equal share of the frames."""
    characters = [one for one in text.lower() if unicodedata.category(one)[0] in "LMN"]
    if not characters:
        return []
    places = (np.arange(num_frames) * len(characters)) // max(1, num_frames)
    return [characters[place] for place in places]


class LabelTable:
    """Frames of each label in each cluster; rows are added as labels turn up."""

    def __init__(self, k: int) -> None:
        """Start with no label and ``k`` clusters."""
        self._rows: dict[str, int] = {}
        self._counts = np.zeros((16, k), np.int64)
        self._most = max(64, _MAX_CELLS // k)

    def add(self, labels: Sequence[str | None], units: Int[np.ndarray, "T"]) -> None:
        """Count one utterance; a frame without a label is left out."""
        rows = [-1 if label is None else self._row(label) for label in labels]
        cells = np.array(rows, np.int64) * self._counts.shape[1] + units
        np.add.at(self._counts.reshape(-1), cells[cells >= 0], 1)

    def _row(self, label: str) -> int:
        if label not in self._rows and len(self._rows) >= self._most - 1:
            label = _OTHER
        row = self._rows.setdefault(label, len(self._rows))
        if row == len(self._counts):
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        return row

    def sorted(self) -> tuple[tuple[str, ...], Int64[np.ndarray, "Y K"]]:
        """Return the labels in order and their rows of the table."""
        symbols = sorted(self._rows)
        return tuple(symbols), self._counts[[self._rows[symbol] for symbol in symbols]]

    def quality(self) -> LabelQuality | None:
        """Return the measures, None where nothing was counted."""
        return label_quality(self.sorted()[1]) if self._rows else None
