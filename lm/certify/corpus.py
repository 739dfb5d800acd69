"""Token shards for a certificate: made on the spot, or the short utterances of the user's.

What is made has every field that a task may read: units, text, a translation, language, speaker,
gender, the codes of a codec, features and speaker embeddings.
"""

import heapq
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from unitone import files, seeding
from unitone.config import to_dict
from unitone.lm.data import splits
from unitone.lm.options import LmConfig
from unitone.tokenizers import parts
from unitone.tokenizers.passport import (
    CodecPassport,
    EncoderPassport,
    FramesPassport,
    KMeansPassport,
    Passport,
    SubwordsPassport,
)
from unitone.tokenizers.shards import INDEX, Codes, TokenShards
from unitone.tokenizers.text.text import ByteText
from unitone.tokenizers.tokenizer import FOLDER

ROWS = 64
"""Utterances of a certificate."""
LOOKED_AT = 2048
"""Of the user's utterances, the first so many, of which the shortest are taken."""
UNITS = 32
LEVELS, CODEBOOK = 3, 16
WIDTH = 24
"""Of features and of speaker embeddings."""
SPEAKERS = ("ann", "bob", "cem", "dee")
PASSPORT = Passport(
    encoder=EncoderPassport(
        name="mfcc",
        weight_hash="0" * 64,
        layer=0,
        dim=39,
        normalize_waveform=False,
        precision="fp32",
    ),
    frames=FramesPassport(frame_policy="exact", window=60.0, context=5.0, frame_rate=100.0),
    kmeans=KMeansPassport(k=UNITS, centroid_hash="0" * 64),
    deduplicate=True,
    unit_pieces=None,
    text=SubwordsPassport(kind="bytes", size=ByteText.size, model_hash=ByteText.hash),
)
CODEC = CodecPassport(
    name="encodec",
    weight_hash="0" * 64,
    levels=LEVELS,
    codebook_size=CODEBOOK,
    frame_rate=50.0,
    sample_rate=16_000,
)


def synthetic(folder: Path) -> Path:
    """Write shards of random tokens, ``features/`` and ``embeddings.safetensors`` beside them."""
    rows = [_row(number) for number in range(ROWS)]
    write(folder / "tokens", rows, passport=PASSPORT, codes=Codes(codec=CODEC, levels=LEVELS))
    features = folder / "features"
    features.mkdir()
    entries = []
    for row in rows:
        drawn = seeding.stream(0, "certify", "features", row["id"])
        values = drawn.standard_normal((len(row["units"]), WIDTH)).astype(np.float32)
        np.save(features / f"{row['id']}.npy", values)
        entries.append({"id": row["id"], "file": f"{row['id']}.npy"})
    files.write_json_lines(features / "features.jsonl", entries)
    drawn = seeding.stream(0, "certify", "voices")
    vectors = {one: drawn.standard_normal(WIDTH).astype(np.float32) for one in SPEAKERS}
    save_file(vectors, folder / "embeddings.safetensors")
    return folder / "tokens"


def _row(number: int) -> dict[str, Any]:
    """Return an utterance of random length; speech is longer than text, as it is."""
    drawn = seeding.stream(0, "certify", "row", number)
    language, other = ("en", "de") if number % 2 else ("de", "en")
    units = drawn.integers(UNITS, size=int(drawn.integers(14, 40))).tolist()
    frames = int(drawn.integers(8, 20))

    def text() -> str:
        letters = drawn.integers(ord("a"), ord("z") + 1, size=int(drawn.integers(4, 13)))
        return "".join(map(chr, letters))

    return {
        "id": f"u{number}",
        "units": units,
        "durations": [2] * len(units),
        "text": text(),
        "translation": [{"language": other, "text": text()}],
        "language": language,
        "speaker": SPEAKERS[number % len(SPEAKERS)],
        "gender": "f" if number % len(SPEAKERS) % 2 else "m",
        "split": "dev" if number % 8 == 0 else "train",
        "num_samples": 320 * len(units),
        "codes": drawn.integers(CODEBOOK, size=(LEVELS, frames)).tolist(),
    }


def sample(config: LmConfig[Any], folder: Path) -> Path:
    """Write shards of the shortest among the first utterances that ``config`` trains on.

    Raises:
        CorpusError, ConfigError, CheckpointError: as training would.
    """
    shards = TokenShards(config.tokens)
    split_of = splits.splitter(shards, config.split_by)
    rows = (row for row in shards.rows() if split_of(row) in config.split)
    first = itertools.islice(rows, LOOKED_AT)
    shortest = heapq.nsmallest(ROWS, first, key=lambda row: (row["num_samples"], row["id"]))
    for row in shortest:
        row["split"] = config.split[0]
        if row.get("codes") is not None:
            row["codes"] = row["codes"].tolist()
    write(folder / "tokens", shortest, passport=shards.passport, codes=shards.codes)
    own = config.tokens / FOLDER
    if own.is_dir():
        shutil.copytree(own, folder / "tokens" / FOLDER, dirs_exist_ok=True)
    return folder / "tokens"


def write(
    folder: Path, rows: Sequence[dict[str, Any]], *, passport: Passport, codes: Codes | None
) -> None:
    """Write token shards with a tokenizer's passport inside."""
    (folder / FOLDER).mkdir(parents=True)
    part = "part-00000.parquet"
    known = codes is not None
    parts.write(folder / part, [*rows], metadata={}, row_group=len(rows), codes=known)
    index = {
        "format": 1,
        "passport_hash": passport.hash,
        "manifest_sha256": "certificate",
        "num_rows": len(rows),
        "num_samples": sum(row["num_samples"] for row in rows),
        "parts": [{"file": part, "first_row": 0}],
        **({} if codes is None else {"codes": to_dict(codes)}),
    }
    files.write_text(folder / INDEX, json.dumps(index))
    passport.save(folder)
    passport.save(folder / FOLDER)
