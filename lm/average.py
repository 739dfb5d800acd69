"""Average the last checkpoints of a run: ``unitone average --run exp/run --last 5 --out exp/mean``.

The mean of weights along the end of a run is often a better model than the last of them (Izmailov
et al. 2018, arXiv 1803.05407); ESPnet and fairseq do the same. The run must have kept as many
checkpoints (``lm.train --keep``). What is written is a model directory like ``RUN/last``.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.errors import ConfigError

logger = logging.getLogger(__name__)

NETWORK = "model"
"""What `unitone.lm.train` calls its trainable module."""
PART = "model."
"""How the names of the model's weights begin in it; the rest, such as the head of ``--ctc``, only
trains."""


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    run: Path
    """Folder of a run of ``python -m lm.train``."""
    out: Path
    """Model directory to write."""
    last: int = 5
    """Checkpoints that are averaged."""

    def __post_init__(self) -> None:
        if self.last < 2:
            raise ConfigError(f"--last must be at least 2, got {self.last}")


def average(config: AverageConfig) -> None:
    """Write the model directory.

    Raises:
        ConfigError: no such run, it has fewer checkpoints, or ``out`` is there already.
        CheckpointError: a checkpoint is damaged.
    """
    from unitone import files
    from unitone.lm import families, family
    from unitone.model_dir import CARD, WEIGHTS
    from unitone.train import checkpoint

    model = config.run / "last"
    found = checkpoint.found(config.run / "checkpoints")
    if not model.is_dir():
        raise ConfigError(f"--run {config.run}: no run of lm.train that has saved a model")
    if len(found) < config.last:
        raise ConfigError(
            f"--last {config.last}: {config.run} has kept {len(found)} checkpoints; train with "
            f"--keep {config.last} or more"
        )
    if config.out.exists():
        raise ConfigError(f"--out {config.out} is there already; choose another")
    folders = found[-config.last :]
    mean = checkpoint.average(folders, NETWORK)
    loaded = family.load(model, device="cpu")
    own = {n.removeprefix(PART): tensor for n, tensor in mean.items() if n.startswith(PART)}
    checkpoint.load_weights(loaded.model, own, where=str(folders[-1]))
    names = ", ".join(folder.name for folder in folders)
    with checkpoint.replacing_folder(config.out) as temporary:
        shutil.copytree(model, temporary, copy_function=shutil.copyfile, dirs_exist_ok=True)
        tensors = families.module(loaded.family, "weights").to_tensors(loaded.model)
        checkpoint.save_tensors(temporary / WEIGHTS, tensors)
        card = (temporary / CARD).read_text(encoding="utf-8")
        files.write_text(temporary / CARD, f"{card}\n## Weights\n\nThe mean of {names}.\n")
    logger.info("%s: the mean of %s", config.out, names)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(AverageConfig, argv, __doc__)
    return program.run(lambda: average(config))


if __name__ == "__main__":
    raise SystemExit(main())
