"""The work of ``tokenizers.features``."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unitone import config as configs
from unitone import files
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.corpus import Corpus
from unitone.corpus.utterance import Skipped, file_name
from unitone.errors import ConfigError, CorpusError
from unitone.logs import Progress
from unitone.resume import require_unchanged
from unitone.tokenizers.extract import Features, extract
from unitone.tokenizers.features import FeaturesConfig
from unitone.tokenizers.tokenizer import encoder_passport

logger = logging.getLogger(__name__)

BLOCK = 64
"""Utterances that are in memory together where they are batched."""


def write_features(config: FeaturesConfig) -> None:
    """Write the features of every utterance that has no file yet."""
    corpus = config.reading.corpus()
    with files.locked(config.out):
        skipped = [*corpus.skipped, *_write_missing(config, corpus)]
        skipped.sort(key=lambda item: item.line)
        _write_index(config.out, corpus, skipped)
    logger.info(
        "%d files in %s; %d skipped%s",
        len(corpus.entries) - len(skipped),
        config.out,
        len(skipped),
        " (skipped.jsonl says why)" if skipped else "",
    )
    if len(skipped) == len(corpus.entries):
        raise CorpusError(f"{corpus.path}: no utterance could be used: {skipped[0].reason}")


def _write_missing(config: FeaturesConfig, corpus: Corpus) -> list[Skipped]:
    options = config.extractor
    extractor = options.open()
    made_by: dict[str, Any] = {
        "encoder": configs.to_dict(encoder_passport(extractor, options.precision)),
        "frames": configs.to_dict(options.frames),
        "manifest_sha256": corpus.sha256,
    }
    _check_folder(config.out, made_by)
    missing = [u for u in corpus.utterances if not (config.out / file_name(u.id, ".npy")).is_file()]
    wanted = {utterance.id for utterance in missing}
    indices = [i for i, entry in enumerate(corpus.entries) if entry.id in wanted]
    skipped: list[Skipped] = []
    results = (
        item
        for first in range(0, len(missing), BLOCK)
        for item in extract(
            extractor,
            missing[first : first + BLOCK],
            workers=config.reading.workers,
            batch_seconds=options.batch_seconds(config.reading.batch_seconds),
        )
    )
    with Progress("features", total=corpus.stated_seconds(indices), unit="s of audio") as bar:
        for item in results:
            if isinstance(item, Features):
                path = config.out / file_name(item.utterance.id, ".npy")
                try:
                    _write(path, item, extractor.encoder.dim)
                except CorpusError as error:  # in the middle of a long recording
                    item = item.utterance.skipped(str(error))
                else:
                    bar.advance(item.num_samples / SAMPLE_RATE)
                    continue
            if config.reading.strict:
                raise CorpusError(f"--strict: {item.id}: {item.reason}")
            skipped.append(item)
    return skipped


def _check_folder(out: Path, made_by: dict[str, Any]) -> None:
    path = out / "features.json"
    if not (out / "passport.json").is_file():
        files.require_own(out, path.name)
    if path.is_file():
        require_unchanged(files.read_json(path), made_by, where=out)
    if (out / "passport.json").is_file():
        raise ConfigError(f"--out {out} holds other artifacts; choose another --out")
    files.write_json(path, made_by)


def _write(path: Path, features: Features, dim: int) -> None:
    """Write one utterance; a long recording goes to disk chunk by chunk."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        header = {
            "descr": "<f4",
            "fortran_order": False,
            "shape": (features.num_frames, dim),
        }
        np.lib.format.write_array_header_1_0(file, header)
        for rows in _arrays(features):
            file.write(rows.tobytes())


def _arrays(features: Features) -> Iterator[np.ndarray]:
    for chunk in features.chunks:
        yield chunk.float().cpu().numpy().astype("<f4", copy=False)


def _write_index(out: Path, corpus: Corpus, skipped: list[Skipped]) -> None:
    lost = {item.line for item in skipped}
    there = (u.id for u in corpus.utterances if u.line not in lost)
    files.write_json_lines(
        out / "features.jsonl", ({"id": name, "file": file_name(name, ".npy")} for name in there)
    )
    files.write_json_lines(out / "skipped.jsonl", (item.to_json() for item in skipped))
