"""The work of ``eval.bench.families``: either family, timed."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitone import files, seeding
from unitone.eval.bench.families import FamiliesConfig
from unitone.eval.statistics import interval
from unitone.lm import family
from unitone.lm.data.sources import Source
from unitone.lm.decoder import generation
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import LanguageModel
from unitone.lm.decoder.model import size as decoder_size
from unitone.lm.decoder.template import Decoding
from unitone.lm.options import SourceConfig
from unitone.lm.t2v2 import decoding as t2v2
from unitone.lm.t2v2.model import T2V2
from unitone.lm.t2v2.model import size as t2v2_size
from unitone.lm.t2v2.options import DecodingConfig

logger = logging.getLogger(__name__)

GOALS = {"asr": 5.0, "tts": 8.0}
UNITS, TEXT = 1000, 500
"""Tokens of the random models' vocabularies."""
Work = Callable[[], object]


def bench(config: FamiliesConfig) -> None:
    """Time either family and print the table."""
    torch.set_num_threads(config.threads)
    if not config.models:
        sides = {config.decoder: _decoder(config), config.nar: _nar(config)}
        found = {
            name: {task: [_least(work, config.repeats)] for task, work in side.items()}
            for name, side in sides.items()
        }
    else:
        found = {str(folder): _trained(config, folder) for folder in config.models}
    first = next(iter(found.values()))
    logger.info(
        "seconds an utterance, batch 1, %d threads, torch %s", config.threads, torch.__version__
    )
    for name, tasks in found.items():
        for task, seconds in tasks.items():
            mean = float(np.mean(seconds))
            ratio = float(np.mean(first[task])) / mean
            logger.info(
                "%-4s %-40s %8.4f s  %6.2f x  (goal %g)", task, name, mean, ratio, GOALS[task]
            )
    if config.out is not None:
        figures = {
            name: {task: _figures(seconds) for task, seconds in tasks.items()}
            for name, tasks in found.items()
        }
        files.write_json(config.out, {"threads": config.threads, "seconds": figures})


def _figures(seconds: list[float]) -> dict[str, Any]:
    rows = np.stack([np.asarray(seconds), np.ones(len(seconds))], axis=1)
    around = interval(rows, lambda sums: sums[:, 0] / sums[:, 1])
    return {
        "mean": float(np.mean(seconds)),
        "interval": None if around is None else [around.low, around.high],
        "utterances": len(seconds),
    }


def _least(work: Work, repeats: int) -> float:
    work()
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return min(spent)


def _decoder(config: FamiliesConfig) -> dict[str, Work]:
    """Return the work of the decoder-only model: a prompt, and so many steps."""
    size = UNITS + TEXT
    model = LanguageModel(
        decoder_size(config.decoder, vocab_size=size), generator=torch.Generator().manual_seed(0)
    )
    prepared = generation.prepare(model.eval())
    allowed = torch.ones(size, dtype=torch.bool)

    def work(given: int, new: int) -> Work:
        prompt = seeding.stream(0, "prompt").integers(0, size, given).astype(np.int32)
        example = Example(tokens=prompt, target=np.zeros(given, bool))
        how = Decoding(max_tokens=new, min_tokens=new)
        return lambda: generation.generate(
            prepared, [example], allowed=allowed, eos=0, decoding=how
        )

    return {"asr": work(config.units, config.text), "tts": work(config.text, config.units)}


def _nar(config: FamiliesConfig) -> dict[str, Work]:
    """Return the work of the other: its default rounds of correction and passes of synthesis."""
    shape = t2v2_size(config.nar, vocab_size=UNITS + TEXT, text=TEXT, units=UNITS)
    model = T2V2(shape, generator=torch.Generator().manual_seed(0)).eval()
    how = DecodingConfig()
    drawn = seeding.stream(0, "prompt")
    units = torch.from_numpy(drawn.integers(0, UNITS, (1, config.units)))
    text = torch.from_numpy(drawn.integers(0, TEXT, (1, config.text)))
    tokens, count = torch.tensor([config.text]), torch.tensor([config.units])
    valid = torch.ones_like(units, dtype=torch.bool)
    durations = torch.full_like(text, config.units // config.text)
    durations[0, -1] += config.units - int(durations.sum())
    filling = t2v2.Synthesis(
        passes=how.passes, guidance=how.guidance, twin=how.twin, temperature=how.temperature
    )

    @torch.inference_mode()
    def recognize() -> object:  # random weights are unsure of all frames: every round is made
        return t2v2.recognize(
            model, valid, {"units": units}, threshold=how.threshold, rounds=how.rounds
        )

    @torch.inference_mode()
    def synthesize() -> object:
        t2v2.lengths(model, text, tokens, {}, scale=1.0)
        spread, _ = t2v2.spread(text, durations)
        return t2v2.fill(
            model,
            torch.full_like(units, model.mask_unit),
            spread,
            count,
            {},
            how=filling,
            generators=[seeding.stream(0, "fill")],
        )

    return {"asr": recognize, "tts": synthesize}


def _trained(config: FamiliesConfig, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each utterance."""
    loaded = family.load(folder, device="cpu")
    assert config.tokens is not None  # checked with the options
    found: dict[str, list[float]] = {}
    for task in GOALS:
        predictor = loaded.predictor(task)
        source = Source(
            SourceConfig(tokens=config.tokens, split=config.split, limit=config.utterances),
            loaded,
            needs=frozenset(predictor.task.inputs),
        )
        rows = [row for row in source.read(range(len(source))) if not isinstance(row, str)]
        requests = [predictor.request(loaded.fields.record(row)) for row in rows]
        found[task] = [
            _least(partial(predictor.predict, [one]), config.repeats) for one in requests
        ]
    return found
