"""Edits between two sequences: counts and an alignment, by Levenshtein's distance (1966).

Substitution, deletion and insertion cost one each. Where several alignments have the fewest edits,
RapidFuzz's is taken, as jiwer does; only the total is then unique, not its split into kinds.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Kind = Literal["hit", "sub", "del", "ins"]


@dataclass(frozen=True)
class Edits:
    """What turns references into hypotheses."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def reference(self) -> int:
        """The length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def hypothesis(self) -> int:
        """The length of the hypothesis."""
        return self.hits + self.substitutions + self.insertions

    @property
    def errors(self) -> int:
        """The distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference item, which may exceed 1; NaN where the reference is empty."""
        return self.errors / self.reference if self.reference else float("nan")

    def to_json(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        return {"reference": self.reference, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One column of an alignment; None where the side has nothing."""

    kind: Kind
    reference: str | None
    hypothesis: str | None


def count_edits(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> Edits:
    """Count the edits of a shortest way from ``reference`` to ``hypothesis``.

    One word replaced and one added:

    >>> count_edits("two dogs play".split(), "two cats play here".split())
    Edits(hits=2, substitutions=1, deletions=0, insertions=1)
    """
    if reference == hypothesis:
        return Edits(hits=len(reference))
    from rapidfuzz.distance import Levenshtein

    tags = Counter(tag for tag, _, _ in Levenshtein.editops(reference, hypothesis))
    return Edits(
        hits=len(reference) - tags["replace"] - tags["delete"],
        substitutions=tags["replace"],
        deletions=tags["delete"],
        insertions=tags["insert"],
    )


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Step]:
    """Return the alignment that `count_edits` counts, in order.

    >>> [step.kind for step in align(["a", "b"], ["a", "c", "b"])]
    ['hit', 'ins', 'hit']
    """
    from rapidfuzz.distance import Levenshtein

    steps: list[Step] = []
    for block in Levenshtein.opcodes(reference, hypothesis):
        left = reference[block.src_start : block.src_end]
        right = hypothesis[block.dest_start : block.dest_end]
        if block.tag == "insert":
            steps += [Step(kind="ins", reference=None, hypothesis=word) for word in right]
        elif block.tag == "delete":
            steps += [Step(kind="del", reference=word, hypothesis=None) for word in left]
        else:
            kind: Kind = "hit" if block.tag == "equal" else "sub"
            steps += [
                Step(kind=kind, reference=before, hypothesis=after)
                for before, after in zip(left, right, strict=True)
            ]
    return steps


def confusions(alignments: Iterable[Sequence[Step]]) -> Counter[tuple[str | None, str | None]]:
    """Count each kind of error: (reference, hypothesis), None for nothing."""
    return Counter(
        (step.reference, step.hypothesis)
        for steps in alignments
        for step in steps
        if step.kind != "hit"
    )
