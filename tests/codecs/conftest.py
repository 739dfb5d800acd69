"""A tiny corpus with its tokenizer and shards, and untrained unit decoders over it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unitone.codecs.nn.network import NetworkConfig, UnitNetwork
from unitone.codecs.options import BackboneConfig
from unitone.codecs.unit_decoder import Card, UnitDecoder, load, save
from unitone.tokenizers import build, encode
from unitone.tokenizers.tokenizer import Tokenizer

Speech = Callable[..., np.ndarray]
NUM_UNITS = 6
TINY = BackboneConfig(dim=16, num_blocks=2, duration_dim=8)
VOICES = ("anna", "bert")


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the stages before a decoder leave on the disk."""

    manifest: Path
    tokenizer: Path
    tokens: Path


@pytest.fixture(autouse=True)
def every_test_on_one_thread(one_thread: None) -> None:
    """Without being asked."""


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Stages:
    folder = tmp_path_factory.mktemp("stages")
    lines = []
    for index in range(6):
        wave = speech(0.4 + 0.2 * index, index)
        soundfile.write(folder / f"{index}.wav", wave, 16_000, subtype="FLOAT")
        row = {"id": f"u{index}", "audio": f"{index}.wav", "speaker": VOICES[index % 2]}
        split = "dev" if index == 5 else "train"
        lines.append(json.dumps(row | {"text": f"SENTENCE {index}", "split": split}) + "\n")
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(lines), encoding="utf-8")
    made = Stages(manifest=manifest, tokenizer=folder / "tokenizer", tokens=folder / "tokens")
    options = ["--manifest", str(manifest)]
    k = ["--ssl", "mfcc", "--k", str(NUM_UNITS)]
    assert build.main([*options, *k, "--out", str(made.tokenizer)]) == 0
    tokenizer = ["--tokenizer", str(made.tokenizer)]
    assert encode.main([*options, *tokenizer, "--out", str(made.tokens)]) == 0
    return made


def network(head: str = "mel", **changes: object) -> UnitNetwork:
    """Return a tiny untrained network, the same every time."""
    values = {
        "num_units": NUM_UNITS,
        "frame_rate": 100.0,
        "speakers": VOICES,
        "head": head,
        "griffin_lim": 4,
        "backbone": TINY,
    } | changes
    config = NetworkConfig(**values)  # type: ignore[arg-type]
    return UnitNetwork(config, generator=torch.Generator().manual_seed(1)).eval()


@pytest.fixture
def decoder(stages: Stages, tmp_path: Path) -> UnitDecoder:
    """An untrained unit decoder that was written and read back, with its tokenizer."""
    folder = tmp_path / "decoder"
    folder.mkdir()
    tokenizer = Tokenizer.load(stages.tokenizer)
    card = Card(utterances=6, seconds=5.4, manifest="manifest.jsonl", split=None)
    save(folder, network(), passport=tokenizer.passport, tokenizer=tokenizer, card=card)
    return load(folder)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., UnitNetwork]:
    """``make_network(head="mel", **config)``: a tiny untrained network, the same every time."""
    return network
