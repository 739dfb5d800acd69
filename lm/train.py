"""Train a language model: ``python -m lm.train --config lm-small --tokens exp/tokens --out RUN``.

The name of the size says the family of the model, whose options ``--help`` shows. The same program
runs on one CPU and under ``torchrun --nproc-per-node N -m unitone.lm.train …``. It may be killed at
any moment and run again with the same command: it goes on. ``RUN/best`` and ``RUN/last`` are model
directories; ``RUN/metrics.jsonl`` has the curves.
"""

from typing import Any

from unitone import program
from unitone.config import command_line, option_value
from unitone.lm import families
from unitone.lm.options import LmConfig

RENAMED = {
    "--data": "--tokens",
    "--voices": "--speaker-embeddings",
    "--sample-tokens": "--prompt-tokens",
    "--round-examples": "--window-examples",
}


def train(config: LmConfig[Any]) -> None:
    """Train; go on where an earlier run in ``config.out`` stopped.

    Raises:
        ConfigError: options or artifacts that don't go together.
        CheckpointError: an artifact is missing or damaged.
    """
    from unitone.lm.jobs import train as job

    job.train(config)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    size = option_value(argv, "--config") or LmConfig.config

    def run() -> None:
        name = families.of_size(size)
        options = families.module(name, "options")
        sizes = ", ".join(options.SIZES)
        doc = f"{__doc__}\nSizes of the {name} family: {sizes}."
        kind: Any = LmConfig
        train(command_line(kind[options.Options], argv, doc, renamed=RENAMED))

    return program.run(run)


if __name__ == "__main__":
    raise SystemExit(main())
