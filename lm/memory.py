"""How many tokens fit: ``unitone memory --config lm-small --vocab-size 4000 --gib 20``.

Runs training steps of a few small batches, each in a process of its own, fits the peak memory as
base + per token + per pair of positions (`unitone.train.batches.MemoryModel`), and prints the
largest ``--max-tokens`` for ``lm.train`` that stays within ``--gib``. On a CPU the peak is that of
the process, on a GPU that of the tensors; averages of the weights (``--ema``) and what ``torchrun``
adds are not in it.
"""

from dataclasses import dataclass
from typing import Literal

from unitone import program
from unitone.config import command_line
from unitone.errors import ConfigError
from unitone.train.config import OptimizerName


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    config: str = "lm-small"
    """Size of the model, as in ``lm.train``."""
    vocab_size: int = 4000
    """Tokens of the vocabulary; ``lm.train`` prints it."""
    code_levels: int = 1
    """Streams of a position, where codes have a delay: ``--code-levels`` of ``lm.train``."""
    gib: float
    """Memory of one process, in GiB."""
    context: int = 1024
    """Longest sequence."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """As in ``lm.train``."""
    optimizer: OptimizerName = "muon"
    checkpoint_activations: bool = False
    """As in ``lm.train``."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        from unitone.lm.data.vocabulary import SPECIALS

        if not self.gib > 0:
            raise ConfigError(f"--gib must be more than 0, got {self.gib:g}")
        if not 1 <= self.code_levels <= self.vocab_size - len(SPECIALS):
            raise ConfigError(
                f"--code-levels must be at least 1, and --vocab-size hold as many more than "
                f"{len(SPECIALS)} tokens; got {self.code_levels}"
            )
        if self.context < 16:
            raise ConfigError(f"--context must be at least 16, got {self.context}")


def fit(config: MemoryConfig) -> int:
    """Measure, log the table and return the largest token budget.

    Raises:
        ConfigError: an unknown size or device, or not even one row of the context fits.
        UnitoneError: the machine hasn't enough memory for the measurements.
    """
    from unitone.lm.jobs import memory as job

    return job.fit(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(MemoryConfig, argv, __doc__)

    def run() -> None:
        fit(config)

    return program.run(run)


if __name__ == "__main__":
    raise SystemExit(main())
