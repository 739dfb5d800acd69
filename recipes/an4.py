"""AN4: spelled names, numbers and dates, recorded at CMU in 1991 (0.76 h, BSD-like licence).

    python -m recipes.an4 --manifest an4/manifest.jsonl --out exp/an4

Fetch it from https://github.com/cmusphinx/an4 and write a manifest, one JSON object a line: id,
audio, text, speaker, language, split (train, dev, test; no speaker in two of them). Measured
results: ``docs/results.md``.
"""

from unitone import program
from unitone.config import command_line
from unitone.recipes.recognition import RecognitionConfig, run


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(RecognitionConfig, argv, __doc__)
    return program.run(lambda: run(config))


if __name__ == "__main__":
    raise SystemExit(main())
