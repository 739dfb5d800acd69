"""Units to waveforms: ``python -m unitone.codecs.synthesize --model D --tokens T --out OUT``.

Writes one WAV (16 bit) for every row of the shards, for listening and for scoring, and
``manifest.jsonl`` beside them with the texts of the shards. Files that are there already are left.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitone import files, program
from unitone.codecs.codec import Sound, model_folder
from unitone.codecs.unit_decoder import WEIGHTS, UnitDecoder, load
from unitone.config import command_line
from unitone.errors import ConfigError
from unitone.logs import Progress
from unitone.tokenizers.passport import require_same
from unitone.tokenizers.shards import TokenShards

logger = logging.getLogger(__name__)

BATCH = 8
"""Utterances decoded together."""
MANIFEST = "manifest.jsonl"
MADE_BY = "synthesis.json"
"""What the waveforms were made from."""


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig:
    model: Path
    """Directory of a unit decoder."""
    tokens: Path
    """Shards that ``python -m tokenizers.encode`` wrote, with the same tokenizer."""
    out: Path
    """Folder for the WAV files."""
    split: str | None = None
    """Only the utterances of this split."""
    limit: int | None = None
    """At most so many utterances."""
    speaker: str | None = None
    """Everything in this voice; default: each utterance's own."""
    predict_durations: bool = False
    """Let the decoder time the units, instead of the recording."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def synthesize(config: SynthesizeConfig) -> None:
    """Decode the shards; do only what is missing in ``config.out``."""
    decoder = load(config.model, device=config.device)
    shards = TokenShards(config.tokens)
    require_same(decoder.passport, shards.passport, what=str(config.tokens))
    rows = list(_rows(shards, split=config.split))[: config.limit]
    if not rows:
        raise ConfigError(f"--split {config.split}: no row of {config.tokens} has it")
    if decoder.network.config.speaker_dim is not None:
        raise ConfigError(f"--model {config.model} speaks by embeddings; call its decode in Python")
    for row in rows:
        _speaker(config, row, decoder)  # an unknown one before the work, not in the middle of it
    with files.locked(config.out):
        _check_folder(config, shards)
        lines, loudest = _write_all(config, decoder, rows)
        files.write_text(config.out / MANIFEST, "".join(lines))
    logger.info("%d waveforms in %s; the loudest sample %.2f", len(rows), config.out, loudest)


def _check_folder(config: SynthesizeConfig, shards: TokenShards) -> None:
    """Refuse a folder with the waveforms of another model, other units or another voice."""
    ours = {
        "weights": files.sha256(model_folder(config.model) / WEIGHTS),
        "manifest_sha256": shards.index["manifest_sha256"],
        "split": config.split,
        "speaker": config.speaker,
        "predict_durations": config.predict_durations,
    }
    path = config.out / MADE_BY
    if not path.is_file():
        files.write_json(path, ours)
    theirs = files.read_json(path)
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise ConfigError(
                f"--out {config.out} was begun with another {name} ({theirs.get(name)}, now "
                f"{value}); choose another --out"
            )


def _rows(shards: TokenShards, *, split: str | None) -> Iterator[dict[str, Any]]:
    return (row for row in shards.rows() if split is None or row["split"] == split)


def _write_all(
    config: SynthesizeConfig, decoder: UnitDecoder, rows: Sequence[dict[str, Any]]
) -> tuple[list[str], float]:
    loudest, lines = 0.0, []
    for number, row in enumerate(rows):
        record = {"id": row["id"], "audio": _name(number)} | {
            name: row[name] for name in ("text", "language", "gender", "split") if row[name]
        }
        record["speaker"] = _speaker(config, row, decoder)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    missing = [i for i in range(len(rows)) if not (config.out / _name(i)).is_file()]
    with Progress("synthesize", total=float(len(missing)), unit="utterances") as bar:
        for first in range(0, len(missing), BATCH):
            batch = missing[first : first + BATCH]
            sounds = _decode(config, decoder, [rows[i] for i in batch])
            for index, sound in zip(batch, sounds, strict=True):
                loudest = max(loudest, float(np.abs(sound.wave).max()))
                write_wave(config.out / _name(index), sound)
            bar.advance(float(len(batch)))
    return lines, loudest


def _decode(
    config: SynthesizeConfig, decoder: UnitDecoder, rows: Sequence[dict[str, Any]]
) -> list[Sound]:
    return decoder.decode_batch(
        [np.array(row["units"], np.int32) for row in rows],
        speakers=[_speaker(config, row, decoder) for row in rows],
        durations=[
            "predict" if config.predict_durations else np.array(row["durations"], np.int32)
            for row in rows
        ],
    )


def _speaker(config: SynthesizeConfig, row: dict[str, Any], decoder: UnitDecoder) -> str:
    speaker = config.speaker or row["speaker"] or decoder.speakers[0]
    if speaker not in decoder.speakers:
        raise ConfigError(
            f"utterance {row['id']!r} has speaker {speaker!r}, the decoder has "
            f"{', '.join(decoder.speakers)}; give one of them with --speaker"
        )
    return str(speaker)


def _name(number: int) -> str:
    return f"{number:06d}.wav"


def write_wave(path: Path, sound: Sound) -> None:
    """Write a 16-bit WAV file, whole or not at all; louder than full scale is made quieter."""
    import soundfile

    peak = float(np.abs(sound.wave).max(initial=0.0))
    wave = sound.wave / max(peak, 1.0)
    with files.replacing(path) as temporary:
        soundfile.write(temporary, wave, sound.rate, subtype="PCM_16", format="WAV")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(SynthesizeConfig, argv, __doc__)
    return program.run(lambda: synthesize(config))


if __name__ == "__main__":
    raise SystemExit(main())
