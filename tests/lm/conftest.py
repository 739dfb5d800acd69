"""A corpus of tokens small enough to learn by heart, without audio and without eSpeak."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitone import seeding
from unitone.lm.sequences import Composer
from unitone.lm.tasks import TASKS, Task
from unitone.lm.vocabulary import SPECIALS, Vocabulary
from unitone.tokenizers.text import ByteText

UNITS = 12


def vocabulary(*, tables: Sequence[Task] = TASKS, codes: Sequence[int] = ()) -> Vocabulary:
    tokens = {part.name for task in tables for part in task.parts if part.kind == "token"}
    own = sorted(name[1:-1] for name in tokens if ":" not in name)
    return Vocabulary.build(
        text=256,
        units=UNITS,
        codes=codes,
        tasks=[task.name for task in tables],
        languages=("de", "en"),
        genders=("f", "m"),
        speakers=("ann", "bob"),
        special=(*SPECIALS, *(name for name in own if name not in SPECIALS)),
    )


@pytest.fixture
def composer() -> Composer:
    return Composer(vocabulary=vocabulary(), text=ByteText(), pieces=None)


WORDS = {"en": ("one", "two", "red", "dog"), "de": ("eins", "zwei", "rot", "hund")}


def rows(count: int) -> list[dict[str, Any]]:
    """Sentences of two words; a word is always the same three units, so everything is learnable."""
    made = []
    for number in range(count):
        generator = seeding.stream(0, "row", number)
        first, second = (int(word) for word in generator.integers(4, size=2))
        language, other = ("en", "de") if number % 2 else ("de", "en")
        units = [u for word in (first, second) for u in (word * 3, word * 3 + 1, word * 3 + 2)]
        made.append(
            {
                "id": f"r{number}",
                "units": units,
                "durations": [2] * len(units),
                "text": f"{WORDS[language][first]} {WORDS[language][second]}",
                "translation": [
                    {
                        "language": other,
                        "text": f"{WORDS[other][first]} {WORDS[other][second]}",
                    }
                ],
                "language": language,
                "speaker": "ann" if number % 3 else "bob",
                "gender": "f" if number % 3 else "m",
                "split": "train" if number % 4 else "dev",
                "num_samples": 320 * len(units),
            }
        )
    return made


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes token shards of rows, with a tokenizer directory inside."""

    def make(table: list[dict[str, Any]], *, folder: str = "tokens") -> Path:
        import json

        import pyarrow as pa
        import pyarrow.parquet as pq

        from unitone.tokenizers.passport import (
            EncoderPassport,
            FramesPassport,
            KMeansPassport,
            Passport,
            PiecesPassport,
        )
        from unitone.tokenizers.shards import SCHEMA

        passport = Passport(
            encoder=EncoderPassport(
                name="mfcc",
                weight_hash="0" * 64,
                layer=0,
                dim=39,
                normalize_waveform=False,
                precision="fp32",
            ),
            frames=FramesPassport(frame_policy="exact", window=60.0, context=5.0, frame_rate=100.0),
            kmeans=KMeansPassport(k=UNITS, centroid_hash="1" * 64),
            deduplicate=True,
            unit_pieces=None,
            text=PiecesPassport(kind="bytes", size=256, model_hash=ByteText.hash),
        )
        out = tmp_path / folder
        (out / "tokenizer").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), out / "part-00000.parquet")
        index = {
            "format": 1,
            "passport_hash": passport.hash,
            "manifest_sha256": folder,
            "num_rows": len(table),
            "num_samples": int(np.sum([row["num_samples"] for row in table])),
            "parts": [{"file": "part-00000.parquet", "first_row": 0}],
        }
        (out / "tokens.json").write_text(json.dumps(index))
        passport.save(out)
        passport.save(out / "tokenizer")
        return out

    return make
