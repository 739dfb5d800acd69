"""A model directory as plain Hugging Face files: ``unitone export --model exp/run/best --to hf``.

Transformers loads a model directory as it is. What is written here holds nothing else: Llama's (or
OPT's) own weights, for engines that refuse unknown tensors, in the precision of your choice. The
ids are ours: ``vocabulary.json`` and ``tokenizer/`` come along, and an engine has to take ids: what
wants a text tokenizer has none here. Tested is Transformers, and no other engine.
"""

from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line
from unitone.lm.options import Precision


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    model: Path
    """Model directory, such as exp/run/best."""
    out: Path
    """Directory to write; an earlier export is replaced when the new one is complete."""
    to: str = "hf"
    """Format: hf is what Transformers' from_pretrained loads."""
    precision: Precision = "fp32"
    """Of the written weights."""


def export(config: ExportConfig) -> None:
    """Write ``config.model`` in another format.

    Raises:
        ConfigError: there is no such format or model, or ``out`` is the model or holds other files.
        CheckpointError: the model is damaged.
    """
    from unitone.lm.jobs import export as job

    job.export(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(ExportConfig, argv, __doc__)
    return program.run(lambda: export(config))


if __name__ == "__main__":
    raise SystemExit(main())
