"""Free Spoken Digit Dataset: single digits by a few speakers (CC BY-SA 4.0).

    python -m recipes.fsdd --root free-spoken-digit-dataset --out exp/fsdd

ROOT is a checkout of https://github.com/Jakobovski/free-spoken-digit-dataset. Test are the takes 0
to 4 of each digit, as the corpus has it; dev are the takes 5 to 9, by the same speakers. Or give
``--manifest``, one JSON object a line: id, audio, text (zero, one, …), speaker, language, split.
Measured results: ``docs/results.md``.
"""

import re
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from unitone.errors import CorpusError
from unitone.recipes import recognition, release
from unitone.recipes.recognition import RecognitionConfig

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"(\d)_(\w+)_(\d+)")
"""Of a recording: digit, speaker, take."""


@dataclass(frozen=True, kw_only=True)
class FsddConfig(RecognitionConfig):
    """Single words, by speakers who are in training: the alignment finds itself."""

    duration_penalty: float = 2.0
    speeds: tuple[float, ...] = (0.9, 1.1)
    unit_mask: float = 0.15
    ctc: float = 0.0
    label_smoothing: float = 0.0
    steps: int = 400


def prepare(root: Path, out: Path | None = None) -> Path:
    """Write the manifest of the checkout in ``root`` and return its path.

    Args:
        root: the checkout.
        out: folder for the manifest; default: ``root`` itself.

    Raises:
        CorpusError: there are no recordings.
    """
    folder = root / "recordings"
    release.require([folder], source=SOURCE)
    named = [(found, path) for path in folder.glob("*.wav") if (found := NAME.fullmatch(path.stem))]
    if not named:
        raise CorpusError(f"{folder} has no DIGIT_SPEAKER_TAKE.wav; get the corpus from {SOURCE}")
    entries = (
        {
            "id": f"fsdd-{found[1]}-{found[2]}-{int(found[3]):02d}",
            "audio": path,
            "text": WORDS[int(found[1])],
            "speaker": f"fsdd-{found[2]}",
            "language": "en",
            "split": _split(int(found[3])),
        }
        for found, path in named
    )
    return release.write_manifest(out or root, sorted(entries, key=itemgetter("id")))


def _split(take: int) -> str:
    if take < 5:
        return "test"
    return "dev" if take < 10 else "train"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return recognition.main(FsddConfig, argv, __doc__, prepare=prepare)


if __name__ == "__main__":
    raise SystemExit(main())
