"""Another utterance of the same speaker, a prompt, ``{prompt_units}``. Axes: U utterances."""

import numpy as np
from jaxtyping import Int


class SpeakerPrompts:
    """Knows for every utterance of a corpus which others may show how its speaker sounds."""

    longest: Int[np.ndarray, "U"]
    """At most so many units has what is drawn; 0 where there is no other utterance."""

    def __init__(self, speakers: Int[np.ndarray, "U"], sizes: Int[np.ndarray, "U"]) -> None:
        """Group the utterances by speaker.

        Args:
            speakers: number of each one's speaker, -1 where it isn't known.
            sizes: units of each; one without any shows nothing.
        """
        usable = (speakers >= 0) & (sizes > 0)
        rows = np.flatnonzero(usable)
        self._rows = rows[np.argsort(speakers[rows], kind="stable")]
        grouped = speakers[self._rows]
        self._starts = np.searchsorted(grouped, speakers, side="left")
        self._ends = np.searchsorted(grouped, speakers, side="right")
        most = np.zeros(speakers.max(initial=-1) + 2, np.int64)  # the last is nobody's, at -1
        np.maximum.at(most, grouped, sizes[self._rows])
        others = self._ends - self._starts - usable
        self.longest = np.where(others > 0, most[speakers], 0)

    def draw(self, row: int, generator: np.random.Generator) -> int:
        """Return an utterance of the same speaker other than ``row``, which must have one."""
        mates = self._rows[self._starts[row] : self._ends[row]]
        mates = mates[mates != row]
        return int(mates[generator.integers(len(mates))])
