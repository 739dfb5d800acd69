"""The work of ``unitone memory``: training steps in processes of their own."""

import logging
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch

from unitone import devices, seeding
from unitone.errors import UnitoneError
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.decoder.batch import plain
from unitone.lm.decoder.model import LanguageModel, size
from unitone.lm.decoder.objective import NextToken
from unitone.lm.memory import MemoryConfig
from unitone.train import memory, optim
from unitone.train.batches import MemoryModel

logger = logging.getLogger(__name__)

GIB = 2**30


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
