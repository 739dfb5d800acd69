"""Free Spoken Digit Dataset: single digits by a few speakers (CC BY-SA 4.0).

    python -m recipes.fsdd --manifest fsdd/manifest.jsonl --out exp/fsdd

Fetch it from https://github.com/Jakobovski/free-spoken-digit-dataset and write a manifest, one JSON
object a line: id, audio, text (zero, one, …), speaker, language, split. Measured results:
``docs/results.md``.
"""

from dataclasses import dataclass

from unitone import program
from unitone.config import command_line
from unitone.recipes.recognition import RecognitionConfig, run


@dataclass(frozen=True, kw_only=True)
class FsddConfig(RecognitionConfig):
    """Single words, by speakers who were heard: the alignment finds itself."""

    switch_penalty: float = 2.0
    speeds: tuple[float, ...] = (0.9, 1.1)
    unit_mask: float = 0.15
    ctc: float = 0.0
    label_smoothing: float = 0.0
    steps: int = 400


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(FsddConfig, argv, __doc__)
    return program.run(lambda: run(config))


if __name__ == "__main__":
    raise SystemExit(main())
