"""The work of ``tokenizers.encode``: units of utterances into shards."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from unitone import files
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.corpus import Corpus
from unitone.corpus.reading import ReadingConfig
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import CorpusError
from unitone.logs import Progress, RunLog
from unitone.tokenizers import engines
from unitone.tokenizers.encode import EncodeConfig
from unitone.tokenizers.extract import Features, extract
from unitone.tokenizers.formats import export
from unitone.tokenizers.kmeans.units import deduplicate
from unitone.tokenizers.options import ExtractorConfig
from unitone.tokenizers.shards import ShardWriter, Tokens, TokenShards
from unitone.tokenizers.tokenizer import FOLDER, Tokenizer, copy

logger = logging.getLogger(__name__)

BLOCK = 64
"""Utterances handed out together: what a Ray worker gets, and what is planned into GPU batches."""
Work = Sequence[tuple[int, Utterance]]


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """Utterances to units, on one worker."""

    tokenizer: Tokenizer
    extractor: ExtractorConfig
    readers: int
    batch_seconds: float

    def open(self) -> Callable[[Work], Iterator[tuple[int, Tokens | Skipped]]]:
        """Load the encoder, check it against the passport and return the encoding function."""
        tokenizer = self.tokenizer.open_as(self.extractor)
        deduplicated = self.tokenizer.passport.deduplicate

        def encode_block(work: Work) -> Iterator[tuple[int, Tokens | Skipped]]:
            index_of = {utterance.id: index for index, utterance in work}
            utterances = [utterance for _, utterance in work]
            for item in extract(
                tokenizer.extractor,
                utterances,
                workers=self.readers,
                batch_seconds=self.batch_seconds,
            ):
                if isinstance(item, Skipped):
                    assert item.id is not None
                    yield index_of[item.id], item
                    continue
                index = index_of[item.utterance.id]
                try:
                    units = tokenizer.of(item)
                except CorpusError as error:  # in the middle of a long recording
                    yield index, item.utterance.skipped(str(error))
                    continue
                yield index, _tokens(index, item, units, deduplicated=deduplicated)

        return encode_block


def _tokens(
    index: int, features: Features, units: Int32[np.ndarray, "T"], *, deduplicated: bool
) -> Tokens:
    kept, durations = deduplicate(units) if deduplicated else (units, np.ones_like(units))
    return Tokens(index=index, units=kept, durations=durations, num_samples=features.num_samples)


def encode(config: EncodeConfig) -> None:
    """Encode a corpus; do only what is missing in ``config.out``."""
    tokenizer = Tokenizer.load(config.tokenizer)
    corpus = config.reading.corpus()
    with files.locked(config.out):
        writer = ShardWriter(
            config.out, corpus=corpus, passport=tokenizer.passport, shard_size=config.shard_size
        )
        finish(
            writer,
            out=config.out,
            reading=config.reading,
            corpus=corpus,
            tokenizer=config.tokenizer,
            fill=lambda: _fill(config, tokenizer, corpus, writer),
        )
    if config.format:
        shards = TokenShards(config.out)
        for name in config.format:
            export(shards, corpus, to=name, out=config.out / name)


def finish(
    writer: ShardWriter,
    *,
    out: Path,
    reading: ReadingConfig,
    corpus: Corpus,
    tokenizer: Path,
    fill: Callable[[], float],
) -> None:
    """Complete shards in ``out``, log and report it.

    Args:
        writer: of the shards.
        out: where they are.
        reading: whether a skipped entry is an error.
        corpus: what is encoded.
        tokenizer: directory that the shards get a copy of.
        fill: gives the writer what it misses; returns the seconds of audio that went through.

    Raises:
        CorpusError: nothing could be encoded or, with ``strict``, not everything.
    """
    log = RunLog(out / "log.jsonl")
    missing = writer.missing()
    done = len(corpus.utterances) - len(missing)
    if done:
        logger.info("%d of %d utterances were there already", done, len(corpus.utterances))
    log.write("start", command=sys.argv, missing=len(missing), done=done)
    started = time.perf_counter()
    try:
        seconds = fill()
        index = writer.finish()
        copy(tokenizer, out / FOLDER)
        if reading.strict and index["num_skipped"]:
            raise CorpusError(
                f"--strict: {index['num_skipped']} entries were skipped by an earlier run; "
                f"{out / 'skipped.jsonl'} says why"
            )
    finally:
        writer.close()
    elapsed = time.perf_counter() - started
    log.write("end", audio_seconds=seconds, wall_seconds=elapsed)
    logger.info(
        "%d utterances, %.3f h, in %s; %d skipped%s; this run: %.1f s, %.0f x real time",
        index["num_rows"],
        index["num_samples"] / SAMPLE_RATE / 3600,
        out,
        index["num_skipped"],
        " (skipped.jsonl says why; mend them and remove --out to try again)"
        if index["num_skipped"]
        else "",
        elapsed,
        seconds / elapsed,
    )


def _fill(config: EncodeConfig, tokenizer: Tokenizer, corpus: Corpus, writer: ShardWriter) -> float:
    """Encode what the writer misses; return the seconds of audio that went through."""
    options = tokenizer.extractor(ssl=config.ssl, device=config.device, threads=config.threads)
    batch_seconds = options.batch_seconds(config.reading.batch_seconds)
    job = EncodeJob(
        tokenizer=tokenizer,
        extractor=options,
        readers=config.reading.workers if config.engine == "local" else 1,
        batch_seconds=batch_seconds,
    )
    missing = writer.missing()
    if not missing:
        tokenizer.open_as(options)  # refuses an encoder that isn't the passport's
        return 0.0
    blocks = blocks_of(corpus, missing, whole=batch_seconds > 0)
    results = engines.run(job, blocks, engine=config.engine, workers=config.reading.workers)
    return add_all(writer, results, total=corpus.stated_seconds(missing), reading=config.reading)


def add_all(
    writer: ShardWriter,
    results: Iterable[tuple[int, Tokens | Skipped]],
    *,
    total: float | None,
    reading: ReadingConfig,
) -> float:
    """Give (index, result) after result to the writer; return the seconds of audio among them.

    Raises:
        CorpusError: with ``strict``, one was skipped.
    """
    seconds = 0.0
    with Progress("encode", total=total, unit="s of audio") as bar:
        for index, result in results:
            if isinstance(result, Skipped) and reading.strict:
                raise CorpusError(f"--strict: {result.id}: {result.reason}")
            writer.add(result, index=index)
            if isinstance(result, Tokens):
                seconds += result.num_samples / SAMPLE_RATE
                bar.advance(result.num_samples / SAMPLE_RATE)
    return seconds


def blocks_of(corpus: Corpus, missing: Sequence[int], *, whole: bool) -> list[Work]:
    """Cut the manifest into blocks of 64 entries; return those with something missing.

    ``whole``: with all their utterances, so that batches form as in an uninterrupted run;
    otherwise with the missing ones only.
    """
    wanted = set(missing)
    blocks: list[Work] = []
    for first in range(0, len(corpus.entries), BLOCK):
        block = [
            (index, entry)
            for index, entry in enumerate(corpus.entries[first : first + BLOCK], start=first)
            if isinstance(entry, Utterance)
        ]
        absent = [item for item in block if item[0] in wanted]
        if absent:
            blocks.append(block if whole else absent)
    return blocks
