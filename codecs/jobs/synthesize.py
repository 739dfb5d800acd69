"""The work of ``unitone.codecs.synthesize``."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from unitone import files
from unitone.codecs.codec import Codec, Sound, load, passport_of, write_wave
from unitone.codecs.nn.crops import NOBODY
from unitone.codecs.synthesize import SynthesizeConfig
from unitone.codecs.unit_decoder import UnitDecoder
from unitone.errors import ConfigError, CorpusError
from unitone.logs import Progress
from unitone.model_dir import CONFIG, WEIGHTS, resolve
from unitone.resume import require_unchanged
from unitone.tokenizers.passport import require_same
from unitone.tokenizers.shards import TokenShards

logger = logging.getLogger(__name__)

BATCH = 8
"""Utterances decoded together."""
MANIFEST = "manifest.jsonl"
MADE_BY = "synthesis.json"
"""What the waveforms were made from."""


@runtime_checkable
class Decoder(Protocol):
    """What makes sound of rows."""

    def speaker(self, row: Mapping[str, Any]) -> str | None:
        """Return whose voice a row will have; ConfigError where that can't be."""
        ...

    def sounds(self, rows: Sequence[Mapping[str, Any]]) -> list[Sound]:
        """Decode rows."""
        ...


class _Units:
    def __init__(self, config: SynthesizeConfig, decoder: UnitDecoder) -> None:
        if decoder.network.config.speaker_dim is not None:
            raise ConfigError(
                f"--model {config.model} speaks by embeddings; call its decode in Python"
            )
        self._config, self._decoder = config, decoder

    def speaker(self, row: Mapping[str, Any]) -> str:
        known = self._decoder.speakers
        speaker = self._config.speaker or row["speaker"]
        if not speaker:  # in training, those without a speaker are one
            speaker = known[0] if len(known) == 1 else NOBODY
        if speaker not in known:
            has = "no speaker" if speaker == NOBODY else f"speaker {speaker!r}"
            raise ConfigError(
                f"utterance {row['id']!r} has {has}, the decoder has "
                f"{', '.join(known)}; give one of them with --speaker"
            )
        return str(speaker)

    def sounds(self, rows: Sequence[Mapping[str, Any]]) -> list[Sound]:
        predicted = self._config.predict_durations
        return self._decoder.decode_batch(
            [np.array(row["units"], np.int32) for row in rows],
            speakers=[self.speaker(row) for row in rows],
            durations=[
                "predict" if predicted else np.array(row["durations"], np.int32) for row in rows
            ],
        )


class _Codes:
    def __init__(self, config: SynthesizeConfig, codec: Codec) -> None:
        for option, given in (
            ("speaker", config.speaker),
            ("predict-durations", config.predict_durations),
        ):
            if given:
                raise ConfigError(f"--{option}: codes of a codec hold voice and timing already")
        self._codec = codec

    def speaker(self, row: Mapping[str, Any]) -> str | None:
        speaker: str | None = row["speaker"]
        return speaker

    def sounds(self, rows: Sequence[Mapping[str, Any]]) -> list[Sound]:
        return [self._codec.decode(row["codes"]) for row in rows]


def synthesize(config: SynthesizeConfig) -> None:
    """Decode the shards; do only what is missing in ``config.out``."""
    codec = load(config.model, device=config.device)
    shards = TokenShards(config.tokens)
    decoder: Decoder
    if isinstance(codec, UnitDecoder):
        require_same(codec.passport, shards.passport, what=str(config.tokens))
        decoder = _Units(config, codec)
    else:
        passport = passport_of(config.model, codec)
        require_same(passport, shards.require_codes().codec, what=str(config.tokens))
        decoder = _Codes(config, codec)
    every = list(_rows(shards, split=config.split))
    rows = every[: config.limit]
    if not rows:
        raise ConfigError(f"--split {config.split}: no row of {config.tokens} has it")
    for row in rows:
        decoder.speaker(row)  # an unknown one before the work, not in the middle of it
    with files.locked(config.out):
        _check_folder(config, shards, decoder, ids=[row["id"] for row in every])
        records, loudest = _write_all(config, decoder, rows)
        files.write_json_lines(config.out / MANIFEST, records)
    logger.info("%d waveforms in %s; the loudest sample %.2f", len(rows), config.out, loudest)


def _check_folder(
    config: SynthesizeConfig, shards: TokenShards, decoder: Decoder, *, ids: list[str]
) -> None:
    """Refuse a folder with the waveforms of another model, other tokens or another voice."""
    model = resolve(config.model)
    weights = model / (WEIGHTS if (model / WEIGHTS).is_file() else CONFIG)  # of a codec with none
    ours = {
        "weights": files.sha256(weights),
        "manifest_sha256": shards.index["manifest_sha256"],
        "code_levels": shards.require_codes().levels if isinstance(decoder, _Codes) else None,
        "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),  # files have numbers
        "split": config.split,
        "speaker": config.speaker,
        "predict_durations": config.predict_durations,
    }
    path = config.out / MADE_BY
    files.require_own(config.out, MADE_BY)
    if not path.is_file():
        files.write_json(path, ours)
    older = {"ids_sha256": ours["ids_sha256"]}  # of folders from before it was recorded
    require_unchanged(older | files.read_json(path), ours, where=config.out)


def _rows(shards: TokenShards, *, split: str | None) -> Iterator[dict[str, Any]]:
    return (row for row in shards.rows() if split is None or row["split"] == split)


def _write_all(
    config: SynthesizeConfig, decoder: Decoder, rows: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], float]:
    loudest, records = 0.0, []
    for number, row in enumerate(rows):
        record = {"id": row["id"], "audio": _name(number)} | {
            name: row[name] for name in ("text", "language", "gender", "split") if row[name]
        }
        records.append(record | {"speaker": decoder.speaker(row)})
    missing = [i for i in range(len(rows)) if not (config.out / _name(i)).is_file()]
    with Progress("synthesize", total=float(len(missing)), unit="utterances") as bar:
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            try:
                sounds = decoder.sounds([rows[i] for i in batch])
            except ValueError as error:
                names = ", ".join(str(rows[i]["id"]) for i in batch[:3])
                raise CorpusError(f"{config.tokens}: utterance {names}, …: {error}") from error
            for index, sound in zip(batch, sounds, strict=True):
                loudest = max(loudest, float(np.abs(sound.wave).max()))
                write_wave(config.out / _name(index), sound)
            bar.advance(float(len(batch)))
    return records, loudest


def _name(number: int) -> str:
    return f"{number:06d}.wav"
