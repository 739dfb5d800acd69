"""How many tokens fit: ``unitone memory --config lm-small --vocab-size 4000 --gib 20``.

Runs training steps of a few small batches, each in a process of its own, fits the peak memory as
base + per token + per pair of positions (`unitone.train.batches.MemoryModel`), and prints the
largest ``--max-tokens`` for ``lm.train`` that stays within ``--gib``. On a CPU the peak is that of
the process, on a GPU that of the tensors; averages of the weights (``--ema``) and what ``torchrun``
adds are not in it.
"""

import logging
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Literal

import numpy as np
import torch

from unitone import devices, program, seeding
from unitone.config import command_line
from unitone.errors import ConfigError, UnitoneError
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.decoder.batch import plain
from unitone.lm.decoder.model import LanguageModel, size
from unitone.lm.decoder.objective import NextToken
from unitone.train import memory, optim
from unitone.train.batches import MemoryModel
from unitone.train.optim import OptimizerName

logger = logging.getLogger(__name__)

GIB = 2**30


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
    size(config.config, vocab_size=config.vocab_size)  # refuses names that aren't there
    long, short = config.context, config.context // 4
    points = [
        (rows, length, _alone(config, rows, length))
        for rows, length in ((1, short), (4, short), (16, short), (1, long), (4, long))
    ]
    model = MemoryModel.fit(points)
    logger.info("rows  length  measured      fitted")
    for rows, length, measured in points:
        fitted = model.predict(rows=rows, length=length) / GIB
        logger.info("%4d  %6d  %7.3f GiB  %6.3f GiB", rows, length, measured / GIB, fitted)
    tokens = model.max_tokens(budget=config.gib * GIB, max_length=config.context)
    logger.info("--max-tokens %d", tokens)
    return tokens


def _alone(config: MemoryConfig, rows: int, length: int) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(peak, config, rows, length).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise UnitoneError(
                f"a batch of {rows} x {length} tokens does not fit into this machine's memory; "
                "lower --context or take a smaller --config"
            ) from error


def peak(config: MemoryConfig, rows: int, length: int) -> float:
    """Train two steps on a batch of random tokens; return this process's peak memory in bytes."""
    device = devices.resolve(config.device)
    memory.keep_freed()  # as the trainer does
    shape = size(config.config, vocab_size=config.vocab_size, context=config.context)
    inside = replace(shape.transformer, checkpoint_activations=config.checkpoint_activations)
    generator = seeding.torch_generator(0, "weights")
    model = LanguageModel(replace(shape, transformer=inside), generator=generator).to(device)
    words, tokens = _drawn(config, rows, length + 1)
    network = NextToken(model, vocabulary=words, tasks=["text"])
    optimizers = optim.build(
        network,
        blocks=network.blocks,
        name=config.optimizer,
        lr=1e-4,
        betas=(0.9, 0.95),
        weight_decay=0.1,
    )
    batch = plain(tokens.to(device))
    for _ in range(2):  # in the first the optimizers' state isn't there yet
        for _ in range(2):  # with accumulation there are gradients beside the activations
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = network(batch)
            (loss.total / loss.count).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _drawn(config: MemoryConfig, rows: int, length: int) -> tuple[Vocabulary, torch.Tensor]:
    """Return random tokens, in streams where there are several levels, and a vocabulary of them."""
    draw = seeding.stream(0, "memory")
    tokens = draw.integers(config.vocab_size, size=(rows, length))
    if config.code_levels == 1:
        return Vocabulary.build(text=config.vocab_size), torch.from_numpy(tokens)
    size_of_level = (config.vocab_size - len(SPECIALS)) // config.code_levels  # and little text
    words = Vocabulary.build(codes=(size_of_level,) * config.code_levels)
    levels = [block.encode(draw.integers(block.size, size=(rows, length))) for block in words.codes]
    return words, torch.from_numpy(np.stack([tokens, *levels[1:]], axis=-1))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(MemoryConfig, argv, __doc__)

    def run() -> None:
        fit(config)

    return program.run(run)


if __name__ == "__main__":
    raise SystemExit(main())
