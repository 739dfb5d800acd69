"""The work of ``unitone.codecs.encode``.

Axes: Q levels, T frames.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitone import files
from unitone.codecs import codec as codecs
from unitone.codecs.codec import Codec, codes_of
from unitone.codecs.encode import EncodeConfig
from unitone.corpus.corpus import Corpus
from unitone.corpus.utterance import Skipped, Utterance
from unitone.corpus.waveforms import load_ahead
from unitone.errors import ConfigError
from unitone.tokenizers.jobs.encode import add_all, finish
from unitone.tokenizers.shards import SKIPPED, Codes, ShardWriter, Tokens, TokenShards
from unitone.tokenizers.tokenizer import FOLDER


def encode(config: EncodeConfig) -> None:
    """Add the codes; do only what is missing in ``config.out``."""
    codec = codecs.load(config.codec, device=config.device)
    levels = codec.num_levels if config.levels is None else config.levels
    if not 1 <= levels <= codec.num_levels:
        raise ConfigError(f"--levels {levels}: the codec has 1 to {codec.num_levels}")
    shards = TokenShards(config.tokens)
    corpus = config.reading.corpus()
    if shards.index["manifest_sha256"] != corpus.sha256:
        raise ConfigError(
            f"--tokens {config.tokens} was not made from --manifest {config.reading.manifest}; "
            "give the same manifest and --split, or run `python -m tokenizers.encode` again"
        )
    codes = Codes(codec=codecs.passport_of(config.codec, codec), levels=levels)
    with files.locked(config.out):
        writer = ShardWriter(
            config.out,
            corpus=corpus,
            passport=shards.passport,
            shard_size=shards.index["shard_size"],
            codes=codes,
        )
        missing = writer.missing()
        finish(
            writer,
            out=config.out,
            reading=config.reading,
            corpus=corpus,
            tokenizer=config.tokens / FOLDER,
            fill=lambda: add_all(
                writer,
                _results(config, codec, shards, corpus, missing=missing, levels=levels),
                total=corpus.stated_seconds(missing),
                reading=config.reading,
            ),
        )


def _results(
    config: EncodeConfig,
    codec: Codec,
    shards: TokenShards,
    corpus: Corpus,
    *,
    missing: list[int],
    levels: int,
) -> Iterator[tuple[int, Tokens | Skipped]]:
    """Yield the row of every missing entry, or why there is none."""
    row_of = {name: row for row, name in enumerate(shards.ids())}
    reasons = _reasons(config.tokens)
    there: list[tuple[int, Utterance]] = []
    for index in missing:
        entry = corpus.entries[index]
        assert isinstance(entry, Utterance)
        if entry.id in row_of:
            there.append((index, entry))
        else:
            reason = reasons.get(entry.line, "is not in the token shards")
            yield index, entry.skipped(reason)
    loaded = load_ahead(
        (utterance for _, utterance in there),
        longest=round(config.longest * codec.sample_rate),
        workers=config.reading.workers,
        rate=codec.sample_rate,
    )
    for (index, utterance), one in zip(there, loaded, strict=True):
        try:
            codes = codes_of(codec, one)[:levels]
        except ValueError as error:
            yield index, utterance.skipped(str(error))
            continue
        row = shards[row_of[utterance.id]]
        yield (
            index,
            Tokens(
                index=index,
                units=np.array(row["units"], np.int32),
                durations=np.array(row["durations"], np.int32),
                num_samples=row["num_samples"],
                codes=codes,
            ),
        )


def _reasons(tokens: Path) -> dict[int, str]:
    """Return why lines of the manifest have no row in the shards."""
    path = tokens / SKIPPED
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {entry["line"]: entry["reason"] for entry in map(json.loads, lines)}
