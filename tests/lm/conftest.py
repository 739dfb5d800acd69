"""A corpus of tokens small enough to learn by heart, without audio and without eSpeak."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitone import seeding
from unitone.lm.data.fields import Fields
from unitone.lm.data.mixture import Mixture
from unitone.lm.data.store import TokenStore
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.decoder.batch import DecoderBatching
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.options import BatchConfig
from unitone.lm.decoder.template import TASKS, DecoderTask
from unitone.lm.options import MixtureConfig
from unitone.tokenizers.text.text import ByteText

UNITS = 12


def vocabulary(
    *, tables: Sequence[DecoderTask] = TASKS, codes: Sequence[int] = (), passport: str | None = None
) -> Vocabulary:
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
        passport=passport,
    )


@pytest.fixture
def formatter() -> PromptFormatter:
    return PromptFormatter(Fields(vocabulary=vocabulary(), text=ByteText(), subwords=None))


def mixture_of(
    tokens: TokenStore,
    formatter: PromptFormatter,
    table: Sequence[DecoderTask],
    *,
    context: int = 64,
    seed: int = 3,
    **changes: Any,
) -> Mixture:
    """Return a mixture of examples; ``changes`` are fields of its configuration or the batches'."""
    batch = {"packing", "null_share", "unit_mask", "unit_mask_span"} & changes.keys()
    config = MixtureConfig(
        **{
            "max_tokens": 256,
            "window_examples": 100,
            **{name: value for name, value in changes.items() if name not in batch},
        }
    )
    return Mixture(
        config,
        store=tokens,
        tasks=[row.task for row in table],
        batching=DecoderBatching(
            formatter=formatter,
            tasks=tuple(table),
            context=context,
            max_tokens=config.max_tokens,
            config=BatchConfig(**{name: changes[name] for name in batch}),
        ),
        seed=seed,
    )


PASSPORT = {
    "encoder": {
        "name": "mfcc",
        "weight_hash": "0" * 64,
        "layer": 0,
        "dim": 39,
        "normalize_waveform": False,
        "precision": "fp32",
    },
    "frames": {"frame_policy": "exact", "window": 60.0, "context": 5.0, "frame_rate": 100.0},
    "kmeans": {"k": 20, "centroid_hash": "1" * 64},
    "deduplicate": True,
    "unit_pieces": None,
    "text": {"kind": "bytes", "size": 256, "model_hash": "2" * 64},
}

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


def write_shards(out: Path, table: list[dict[str, Any]]) -> Path:
    """Write token shards of rows into the folder ``out``, with a tokenizer directory inside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from unitone.lm.certify.corpus import PASSPORT
    from unitone.tokenizers.parts import SCHEMA
    from unitone.tokenizers.passport import KMeansPassport

    passport = replace(PASSPORT, kmeans=KMeansPassport(k=UNITS, centroid_hash="1" * 64))
    (out / "tokenizer").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), out / "part-00000.parquet")
    index = {
        "format": 1,
        "passport_hash": passport.hash,
        "manifest_sha256": out.name,
        "num_rows": len(table),
        "num_samples": int(np.sum([row["num_samples"] for row in table])),
        "parts": [{"file": "part-00000.parquet", "first_row": 0}],
    }
    (out / "tokens.json").write_text(json.dumps(index))
    passport.save(out)
    passport.save(out / "tokenizer")
    return out


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Return `write_shards` into a folder of the test's."""

    def make(table: list[dict[str, Any]], *, folder: str = "tokens") -> Path:
        return write_shards(tmp_path / folder, table)

    return make


@dataclass(frozen=True, kw_only=True)
class World:
    """Real recordings, their tokenizer and tokens, and an untrained model with a unit decoder."""

    manifest: Path
    tokenizer: Path
    tokens: Path
    model: Path
    ids: tuple[str, ...]


def write_corpus(folder: Path, speech: Callable[..., np.ndarray]) -> Path:
    """Write six recordings and their manifest."""
    import soundfile

    lines = []
    for index in range(6):
        wave = speech(0.4 + 0.2 * index, index)
        soundfile.write(folder / f"{index}.wav", wave, 16_000, subtype="FLOAT")
        language, other = ("en", "de") if index % 2 else ("de", "en")
        row = {
            "id": f"u{index}",
            "audio": f"{index}.wav",
            "text": f"sentence {index}",
            "translation": {other: f"satz {index}"},
            "language": language,
            "speaker": "ann" if index % 2 else "bob",
            "gender": "f" if index % 2 else "m",
            "split": "train" if index < 4 else "test",
        }
        lines.append(json.dumps(row) + "\n")
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(lines), encoding="utf-8")
    return manifest


def write_decoder(folder: Path, tokenizer: Path) -> Path:
    """Write an untrained unit decoder."""
    import torch

    from unitone.codecs import unit_decoder
    from unitone.codecs.nn.network import NetworkConfig, UnitNetwork
    from unitone.codecs.options import BackboneConfig
    from unitone.tokenizers.passport import Passport

    shape = BackboneConfig(dim=16, num_blocks=1, duration_dim=8)
    network = UnitNetwork(
        NetworkConfig(
            num_units=UNITS,
            frame_rate=100.0,
            speakers=("ann", "bob"),
            griffin_lim=2,
            backbone=shape,
        ),
        generator=torch.Generator().manual_seed(1),
    )
    folder.mkdir()
    card = unit_decoder.Card(utterances=6, seconds=6.0, manifest="manifest.jsonl", split=None)
    unit_decoder.save(folder, network, passport=Passport.load(tokenizer), tokenizer=None, card=card)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, speech: Callable[..., np.ndarray]) -> World:
    """Six utterances of 0.4 to 1.4 s, en and de in turn; the model's context is 400 and its
    outputs have at most 12 tokens."""
    import torch

    from unitone.lm import family
    from unitone.lm.decoder.model import LanguageModel, ModelConfig
    from unitone.nn.transformer import TransformerConfig
    from unitone.tokenizers import build, encode
    from unitone.tokenizers.passport import Passport

    folder = tmp_path_factory.mktemp("world")
    manifest, tokenizer = write_corpus(folder, speech), folder / "tokenizer"
    options = [
        "--manifest",
        str(manifest),
        "--ssl",
        "mfcc",
        "--k",
        str(UNITS),
        "--unit-subwords",
        "0",
    ]
    assert build.main([*options, "--out", str(tokenizer)]) == 0
    options = ["--manifest", str(manifest), "--tokenizer", str(tokenizer)]
    assert encode.main([*options, "--out", str(folder / "tokens")]) == 0
    passport = Passport.load(tokenizer)
    decoder = write_decoder(folder / "decoder", tokenizer)
    own = vocabulary(passport=passport.hash)
    config = ModelConfig(
        transformer=TransformerConfig(dim=16, layers=2, heads=2, kv_heads=1, ffn=24),
        vocab_size=len(own),
        context=400,
    )
    model = LanguageModel(config, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model.embedding.weight.mul_(30)
    family.save(
        folder / "best",
        model=model,
        vocabulary=own,
        table=[
            replace(
                task, decoding=replace(task.decoding, max_tokens=min(12, task.decoding.max_tokens))
            )
            for task in TASKS
        ],
        tokenizer=tokenizer,
        decoder=decoder,
    )
    return World(
        manifest=manifest,
        tokenizer=tokenizer,
        tokens=folder / "tokens",
        model=folder / "best",
        ids=tuple(f"u{index}" for index in range(6)),
    )


@pytest.fixture(scope="session")
def spoken(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained T2V2 with the world's tokenizer and unit decoder."""
    from unitone.lm import train as lm_train

    out = tmp_path_factory.mktemp("spoken") / "run"
    words = ["--config", "t2v2-tiny", "--tokens", str(world.tokens), "--out", str(out)]
    words += ["--steps", "2", "--warmup-steps", "1", "--device", "cpu", "--threads", "1"]
    decoder = ["--decoder", str(world.tokenizer.parent / "decoder"), "--valid-utterances", "0"]
    assert lm_train.main([*words, *decoder]) == 0
    return out / "last"
