"""Features are a function of the utterance alone: windows, policies, batches, workers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import ConfigError
from unitone.tokenizers.encoders.mfcc import MFCC
from unitone.tokenizers.extract import Extractor, Features, extract, plan_batches
from unitone.tokenizers.options import ExtractorConfig, FrameConfig

Speech = Callable[..., np.ndarray]
CPU = torch.device("cpu")


def extractor(**frames: object) -> Extractor:
    config = FrameConfig(**frames)  # type: ignore[arg-type]
    return Extractor(encoder=MFCC(), layer=0, frames=config, device=CPU)


class Normalizing(MFCC):
    """MFCC of the normalized waveform: as cheap as a stand-in for a large model can be."""

    normalize = True


class Crowded(MFCC):
    """Runs out of memory with more than two rows, like a GPU that is too small."""

    def features(
        self, waveforms: torch.Tensor, lengths: torch.Tensor, *, layer: int = 0
    ) -> torch.Tensor:
        if len(lengths) > 2:
            raise torch.OutOfMemoryError
        return super().features(waveforms, lengths, layer=layer)


def utterances(folder: Path, seconds: list[float], speech: Speech) -> list[Utterance]:
    made = []
    for index, length in enumerate(seconds):
        path = folder / f"{index}.wav"
        soundfile.write(path, speech(length, index), 16_000, subtype="FLOAT")
        made.append(Utterance(id=str(index), line=index + 1, audio=path))
    return made


def collect(
    one: Extractor, items: list[Utterance], *, workers: int = 2, batch: float = 0.0
) -> dict[str, torch.Tensor]:
    found = {}
    for item in extract(one, items, workers=workers, batch_seconds=batch):
        assert isinstance(item, Features), item
        found[item.utterance.id] = item.whole()
        assert len(found[item.utterance.id]) == item.num_frames == one.num_frames(item.num_samples)
    return found


@given(num_samples=st.integers(1, 5_000))
def test_frame_policies_count_as_they_say(num_samples: int) -> None:
    assert extractor().num_frames(num_samples) == max((num_samples - 400) // 160 + 1, 0)
    assert extractor(frame_policy="ceil").num_frames(num_samples) == -(-num_samples // 160)
    assert extractor(frame_policy="pad_to_hop").num_frames(num_samples) == -(-num_samples // 160)


@pytest.mark.parametrize("policy", ["exact", "ceil", "pad_to_hop"])
@pytest.mark.parametrize("encoder", [MFCC(), Normalizing()])
@pytest.mark.parametrize("length", [3.0, 3.0001, 3.3337, 7.9])
def test_windows_join_to_the_features_of_the_whole(
    tmp_path: Path, speech: Speech, policy: str, encoder: MFCC, length: float
) -> None:
    (long,) = utterances(tmp_path, [length], speech)
    base = extractor(frame_policy=policy)
    uncut = dataclasses.replace(base, encoder=encoder)
    windows = dataclasses.replace(
        uncut, frames=dataclasses.replace(base.frames, window=1.0, context=0.2)
    )

    expected = collect(uncut, [long])["0"]
    found = collect(windows, [long])["0"]

    assert found.shape == expected.shape
    # statistics of the waveform come from one pass over blocks there and one array here
    assert torch.allclose(found, expected, atol=1e-3)


def test_batches_and_workers_change_nothing(tmp_path: Path, speech: Speech) -> None:
    items = utterances(tmp_path, [0.3, 1.7, 0.9, 0.05, 2.5, 1.0], speech)
    alone = collect(extractor(), items, workers=1)

    for workers, batch in ((3, 0.0), (2, 2.0), (1, 60.0)):
        found = collect(extractor(), items, workers=workers, batch=batch)
        assert found.keys() == alone.keys()
        for name, features in found.items():
            assert torch.allclose(features, alone[name], atol=1e-4)
            assert batch > 0 or torch.equal(features, alone[name])


def test_a_batch_too_large_for_memory_goes_in_halves(tmp_path: Path, speech: Speech) -> None:
    items = utterances(tmp_path, [0.5, 0.6, 0.7, 0.8, 0.9], speech)
    small = dataclasses.replace(extractor(), encoder=Crowded())

    found = collect(small, items, batch=60.0)

    assert {name: len(f) for name, f in found.items()} == {
        name: len(f) for name, f in collect(extractor(), items).items()
    }


@given(
    lengths=st.lists(st.integers(1, 100), max_size=30),
    budget=st.integers(1, 300),
)
def test_batches_hold_every_row_once_within_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget=budget)

    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_bad_recordings_are_skipped_among_good_ones(tmp_path: Path, speech: Speech) -> None:
    good, silent, short = utterances(tmp_path, [1.0, 1.0, 1.0], speech)
    soundfile.write(tmp_path / "1.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "2.wav", speech(0.005), 16_000)
    missing = Utterance(id="missing", line=9, audio=tmp_path / "nowhere.wav")

    results = list(
        extract(extractor(), [good, silent, short, missing], workers=2, batch_seconds=0.0)
    )

    reasons = {item.id: item.reason for item in results if isinstance(item, Skipped)}
    assert "every sample is zero" in reasons["1"]
    assert "80 samples (5.0 ms)" in reasons["2"]
    assert "mfcc needs 400 (25 ms)" in reasons["2"]
    assert "no such file" in reasons["missing"]
    assert [item.utterance.id for item in results if isinstance(item, Features)] == ["0"]


def test_options_that_cannot_work_are_usage_errors() -> None:
    with pytest.raises(ConfigError, match="twice the context"):
        FrameConfig(window=10.0, context=5.0)
    with pytest.raises(ConfigError, match="has no layers"):
        ExtractorConfig(ssl="mfcc", layer=9, device="cpu").open()
    with pytest.raises(ConfigError, match="--layer is required"):
        ExtractorConfig(ssl="hubert-base", device="cpu").open()
    with pytest.raises(ConfigError, match="--device tpu"):
        ExtractorConfig(ssl="mfcc", device="tpu").open()
