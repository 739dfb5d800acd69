import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from unitone.codecs.nn.crops import (
    LONGEST_TIMED,
    TIMED,
    Crop,
    CropSource,
    Spec,
    Stretch,
    read_material,
    read_samples,
)
from unitone.codecs.nn.network import UnitNetwork
from unitone.corpus.corpus import read_corpus
from unitone.errors import ConfigError, CorpusError
from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.shards import TokenShards
from unitone.train.loading import BatchSource

MakeNetwork = Callable[..., UnitNetwork]


@pytest.fixture
def source(stages: Any, make_network: MakeNetwork) -> CropSource:
    material = read_material(TokenShards(stages.tokens), stages.manifest, split="train")
    config = make_network().config
    return CropSource(material=material, network=config, seed=3, crop_frames=50, batch_crops=4)


def spec(*crops: Crop, timed: Stretch | None = None) -> Spec:
    return Spec(crops=crops, timed=(timed or Stretch(row=0, first=0),))


def test_crops_are_cut_where_their_units_are(source: CropSource) -> None:
    """Sample n of a crop is sample first * 160 - left + n of the recording, zero outside it."""
    framing = source.network.framing
    for row, first in ((0, 0), (2, 7), (4, 60)):
        recording = source.material.utterances[row].clip.path
        whole, _ = soundfile.read(recording, dtype="float32")
        batch = source.load(spec(Crop(row=row, first=first)))
        frames = source.material.frames(row)[first : first + 50]
        count = len(frames)

        assert batch.units[0, :count].tolist() == frames.tolist()
        assert batch.valid[0].sum() == count
        padded = np.pad(whole, (framing.left, 2000))
        begin = first * 160
        expected = padded[begin : begin + framing.left + count * 160 + framing.right]
        found = batch.waves[0].numpy()
        np.testing.assert_array_equal(found[: len(expected)], expected)
        assert not found[len(expected) :].any()


def test_durations_are_learnt_from_whole_sentences(source: CropSource) -> None:
    for batch_spec in source.plan(0):
        assert len(batch_spec.timed) == TIMED * source.batch_crops
        batch = source.load(batch_spec)
        for stretch, runs, durations, speaker in zip(
            batch_spec.timed, batch.runs, batch.durations, batch.timed_speakers, strict=True
        ):
            known = durations > 0
            rebuilt = expand(runs[known].numpy(), durations[known].numpy())
            assert rebuilt.tolist() == source.material.frames(stretch.row).tolist()
            name = source.material.utterances[stretch.row].speaker
            assert source.network.speakers[int(speaker)] == name


def test_long_recordings_are_timed_in_stretches(source: CropSource) -> None:
    material = source.material
    long = np.arange(3 * LONGEST_TIMED, dtype=np.int32) % 7
    lasting = np.full(len(long), 2, np.int32)
    source = replace(
        source,
        material=replace(
            material,
            units=np.concatenate([long, material.units[material.ends[0] :]]),
            durations=np.concatenate([lasting, material.durations[material.ends[0] :]]),
            ends=material.ends - material.ends[0] + len(long),
            num_frames=np.array([2 * len(long), *material.num_frames[1:]]),
        ),
    )
    found = [one for batch in source.plan(0) for one in batch.timed if one.row == 0]
    assert {one.first for one in found} != {0}
    batch = source.load(spec(Crop(row=1, first=0), timed=Stretch(row=0, first=100)))
    assert batch.runs[0].tolist() == long[100 : 100 + LONGEST_TIMED].tolist()
    assert max(one.first for one in found) <= len(long) - LONGEST_TIMED


def test_a_round_has_every_utterance_by_its_length(source: CropSource) -> None:
    crops = [crop for batch in source.plan(0) for crop in batch.crops]
    assert {crop.row for crop in crops} == set(range(5))
    for crop in crops:
        assert 0 <= crop.first <= max(0, source.material.num_frames[crop.row] - 50)
    share = source.material.num_frames / 50
    counts = np.bincount([crop.row for crop in crops])
    assert (np.abs(counts - share) < 1 + (share < 1)).all()


def test_plans_are_pure_and_rounds_differ(source: CropSource) -> None:
    assert isinstance(source, BatchSource)
    again = pickle.loads(pickle.dumps(source))
    assert source.plan(2) == again.plan(2)
    assert source.plan(2) != source.plan(3)
    one, two = source.load(source.plan(2)[0]), again.load(again.plan(2)[0])
    assert torch.equal(one.waves, two.waves)
    assert torch.equal(one.speakers, two.speakers)


def test_embeddings_go_by_utterance_then_speaker(source: CropSource) -> None:
    table = {
        "anna": np.array([1, 0], np.float32),
        "bert": np.array([0, 1], np.float32),
        "u2": np.array([5, 5], np.float32),
    }
    crops = [Crop(row=row, first=0) for row in range(3)]
    batch = replace(source, embeddings=table).load(spec(*crops, timed=Stretch(row=2, first=0)))
    assert batch.speakers.tolist() == [[1, 0], [0, 1], [5, 5]]
    assert batch.timed_speakers.tolist() == [[5, 5]]


def test_another_rate_is_cut_at_the_same_time(
    tmp_path: Path, speech: Callable[..., np.ndarray]
) -> None:
    """A stretch of a 48 kHz recording is what the whole recording has there at 16 kHz."""
    import soxr

    wave = speech(1.0, 1)
    soundfile.write(
        tmp_path / "a.wav", soxr.resample(wave, 16_000, 48_000), 48_000, subtype="FLOAT"
    )
    (tmp_path / "m.jsonl").write_text('{"id": "a", "audio": "a.wav"}\n', encoding="utf-8")
    (utterance,) = read_corpus(tmp_path / "m.jsonl").utterances
    found = read_samples(utterance, first=4_000, end=9_000)
    assert len(found) == 5_000
    middle = slice(0, 4_800)  # the resampler rings at the end of what it is given
    assert np.abs(found[middle] - wave[4_000:9_000][middle]).max() < 0.02


def test_what_is_missing_is_named(stages: Any, tmp_path: Path) -> None:
    shards = TokenShards(stages.tokens)
    with pytest.raises(ConfigError, match="--split sing"):
        read_material(shards, stages.manifest, split="sing")
    lines = stages.manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    short = stages.manifest.parent / "short.jsonl"
    short.write_text("".join(lines[:3]), encoding="utf-8")
    with pytest.raises(CorpusError, match="has no utterance 'u3'"):
        read_material(shards, short, split=None)
    (utterance, *_) = read_corpus(stages.manifest).utterances
    with pytest.raises(CorpusError, match="after the end"):
        read_samples(utterance, first=0, end=99_000)
    with pytest.raises(CorpusError, match="become shorter"):
        read_samples(utterance, first=6_000, end=7_000)  # it has 6400
