"""A writer that can't hold what a record says refuses; ids stay unique."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.corpus import perturb
from unitone.corpus.corpus import Corpus, read_corpus
from unitone.corpus.cuts import CutsConfig, write_cuts
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError
from unitone.tokenizers.formats import export
from unitone.tokenizers.passport import (
    EncoderPassport,
    FramesPassport,
    KMeansPassport,
    Passport,
    SubwordsPassport,
)
from unitone.tokenizers.shards import ShardWriter, Tokens, TokenShards

Speech = Callable[..., np.ndarray]
PASSPORT = Passport(
    encoder=EncoderPassport(
        name="mfcc", weight_hash="a", layer=0, dim=39, normalize_waveform=False, precision="fp32"
    ),
    frames=FramesPassport(frame_policy="exact", window=60.0, context=5.0, frame_rate=100.0),
    kmeans=KMeansPassport(k=8, centroid_hash="b"),
    deduplicate=True,
    unit_pieces=None,
    text=SubwordsPassport(kind="bytes", size=256, model_hash="c"),
)


def encoded(folder: Path, *lines: dict[str, Any]) -> tuple[TokenShards, Corpus]:
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = read_corpus(manifest)
    writer = ShardWriter(folder / "out", corpus=corpus, passport=PASSPORT, shard_size=2)
    for index in range(len(lines)):
        units = np.full(2, index, np.int32)
        writer.add(
            Tokens(index=index, units=units, durations=np.ones(2, np.int32), num_samples=320),
            index=index,
        )
    writer.finish()
    return TokenShards(folder / "out"), corpus


def test_espnet_keys_are_unique_and_sorted(tmp_path: Path) -> None:
    names = ["b c", "b_c", "a", "B", "d e"]
    shards, corpus = encoded(tmp_path, *({"id": n, "audio": f"{n}.wav"} for n in names))
    export(shards, corpus, to="espnet", out=tmp_path / "e")
    for path in (tmp_path / "e").iterdir():
        lines = path.read_text().splitlines()
        keys = [line.split(" ", 1)[0] for line in lines]
        assert keys == ["B", "a", "b%20c", "b_c", "d_e"]
    labels = (tmp_path / "e" / "pseudo_labels_km8.txt").read_text().splitlines()
    assert labels == ["B 3 3", "a 2 2", "b%20c 0 0", "b_c 1 1", "d_e 4 4"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"audio": "a.wav", "channel": 0}], "one channel"),
        ([{"audio": "a.wav"}, {"audio": "a.wav"}], "one recording twice"),
        ([{"audio": "a.wav", "start": 1.0}], "parts of recordings"),
        ([{"audio": "a\tb.wav"}], "the path"),
        ([{"audio": "a.wav", "split": "x/y"}, {"audio": "b.wav", "split": "x_y"}], "share one"),
    ],
)
def test_fairseq_refuses_what_a_tsv_cannot_hold(
    tmp_path: Path, lines: list[dict[str, Any]], message: str
) -> None:
    shards, corpus = encoded(tmp_path, *({"id": str(i)} | one for i, one in enumerate(lines)))
    with pytest.raises(ConfigError, match=message):
        export(shards, corpus, to="fairseq", out=tmp_path / "f")


def test_a_stated_duration_of_the_whole_file_is_no_part(tmp_path: Path, speech: Speech) -> None:
    soundfile.write(tmp_path / "a.wav", speech(2.0), 16_000)
    shards, corpus = encoded(tmp_path, {"audio_filepath": "a.wav", "duration": 2.0})
    export(shards, corpus, to="fairseq", out=tmp_path / "f")
    shards, corpus = encoded(tmp_path / "f", {"audio_filepath": "../a.wav", "duration": 1.0})
    with pytest.raises(ConfigError, match="parts of recordings"):
        export(shards, corpus, to="fairseq", out=tmp_path / "g")


def test_a_channel_is_kept_by_cuts_and_by_perturb(tmp_path: Path, speech: Speech) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([speech(2.0), speech(2.0, 1)], axis=1), 16_000)
    manifest = tmp_path / "m.jsonl"
    lines = [
        {"id": str(c), "audio": "a.wav", "channel": c, "split": "train", "phones": [["x", 1, 2]]}
        for c in (0, 1)
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_cuts(CutsConfig(out=tmp_path / "c.jsonl", reading=ReadingConfig(manifest=manifest)))
    perturb.perturb(perturb.PerturbConfig(manifest=manifest, out=tmp_path / "p", speeds=(2.0,)))
    for path in (tmp_path / "c.jsonl", tmp_path / "p" / "manifest.jsonl"):
        found = {one.id: one for one in read_corpus(path).utterances}
        assert [found[name].channel for name in "01"] == [0, 1]
        assert found["1"].labels == (("x", 1.0, 2.0),)
    assert found["sp2-1"].channel is None
    assert found["sp2-1"].labels == (("x", 0.5, 1.0),)
