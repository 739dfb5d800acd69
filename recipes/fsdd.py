"""Free Spoken Digit Dataset: single digits by a few speakers (CC BY-SA 4.0).

    python -m recipes.fsdd --manifest fsdd/manifest.jsonl --out exp/fsdd --steps 600

Fetch it from https://github.com/Jakobovski/free-spoken-digit-dataset and write a manifest, one JSON
object a line: id, audio, text (zero, one, …), speaker, language, split. Measured results:
``docs/results.md``.
"""

from unitone import program
from unitone.config import command_line
from unitone.recipes._recognition import RecognitionConfig, run


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(RecognitionConfig, argv, __doc__)
    return program.run(lambda: run(config))


if __name__ == "__main__":
    raise SystemExit(main())
