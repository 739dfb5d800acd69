from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitone.codecs import codec as interface
from unitone.codecs.nn.backbone import durations_of
from unitone.codecs.nn.network import NetworkConfig, UnitNetwork
from unitone.codecs.options import BackboneConfig
from unitone.codecs.unit_decoder import TOKENIZER, Card, UnitDecoder, load, save
from unitone.errors import CheckpointError, ConfigError
from unitone.model_dir import WEIGHTS
from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.tokenizer import Tokenizer

MakeNetwork = Callable[..., UnitNetwork]
CARD = Card(utterances=1, seconds=1.0, manifest="m.jsonl", split="train")


def units(num_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(6, size=num_frames).astype(np.int32)


@pytest.mark.parametrize("head", ["mel", "istft"])
@given(lengths=st.lists(st.integers(1, 12), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_a_batch_is_its_members_alone(
    head: str, lengths: list[int], seed: int, make_network: MakeNetwork
) -> None:
    network = make_network(head)
    longest = max(lengths)
    tokens = torch.from_numpy(units(len(lengths) * longest, seed).astype(np.int64))
    tokens = tokens.reshape(len(lengths), longest)
    valid = torch.arange(longest) < torch.tensor(lengths)[:, None]
    speakers = torch.arange(len(lengths)) % 2

    def waves(rows: slice, frames: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return network.waves(
                tokens[rows, :frames], speakers[rows], valid[rows, :frames], generator=generator
            )

    together = waves(slice(None), longest)
    assert together.shape == (len(lengths), longest * 160)
    for row, length in enumerate(lengths):
        alone = waves(slice(row, row + 1), length)[0]
        # Griffin-Lim divides by magnitudes that may be tiny: rounding grows with its iterations
        torch.testing.assert_close(together[row, : length * 160], alone, atol=2e-4, rtol=0)
        assert not together[row, length * 160 :].any()


def test_durations_do_not_depend_on_padding(make_network: MakeNetwork) -> None:
    network = make_network()
    tokens = torch.from_numpy(units(12).astype(np.int64)).reshape(2, 6)
    valid = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    speakers = torch.tensor([0, 1])
    together = network.durations(tokens, speakers, valid)
    alone = network.durations(tokens[1:, :3], speakers[1:], valid[1:, :3])
    torch.testing.assert_close(together[1, :3], alone[0])


def test_the_speaker_is_heard_and_timed(make_network: MakeNetwork) -> None:
    network = make_network()
    tokens, valid = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool)
    speakers = torch.tensor([0, 1])
    logs = network.log_magnitudes(tokens, speakers, valid)
    times = network.durations(tokens, speakers, valid)
    assert not torch.allclose(logs[0], logs[1])
    assert not torch.allclose(times[0], times[1])


def test_durations_are_whole_frames_and_never_none() -> None:
    logarithms = torch.tensor([[-3.0, 0.0, float(np.log(1.4)), float(np.log(7.0))]])
    assert durations_of(logarithms).tolist() == [[1, 1, 1, 7]]


def test_runs_with_durations_are_their_frames(decoder: UnitDecoder) -> None:
    runs, lasting = np.array([3, 1, 5], np.int32), np.array([2, 0, 4], np.int32)
    by_runs = decoder.decode(runs, speaker="bert", durations=lasting)
    by_frames = decoder.decode(expand(runs, lasting), speaker="bert")
    assert len(by_runs.wave) == 6 * 160
    assert np.array_equal(by_runs.wave, by_frames.wave)


def test_predicted_durations_decide_the_length(decoder: UnitDecoder) -> None:
    runs = units(5)
    lasting = decoder.predict_durations(runs, speaker="bert")
    assert lasting.min() >= 1
    wave, _ = decoder.decode(runs, speaker="bert", durations="predict")
    assert len(wave) == lasting.sum() * 160


def test_several_sequences_at_once(decoder: UnitDecoder) -> None:
    sequences = [units(7), units(3)[None]]
    sounds = decoder.decode_batch(
        sequences, speakers=["bert", None], durations=["frames", "frames"]
    )
    for sequence, speaker, sound in zip(sequences, ["bert", "anna"], sounds, strict=True):
        alone = decoder.decode(sequence, speaker=speaker).wave
        np.testing.assert_allclose(sound.wave, alone, atol=2e-4)
    assert decoder.decode_batch([], speakers=[], durations=[]) == []


def test_what_cannot_be_decoded_says_why(decoder: UnitDecoder) -> None:
    with pytest.raises(ValueError, match="no speaker 'carl'; there are anna, bert"):
        decoder.decode(units(3), speaker="carl")
    with pytest.raises(ValueError, match="by name, not by embedding"):
        decoder.decode(units(3), speaker=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="3 units have 2 durations"):
        decoder.decode(units(3), durations=np.array([1, 2], np.int32))
    with pytest.raises(ValueError, match="negative"):
        decoder.decode(units(2), durations=np.array([1, -2], np.int32))
    with pytest.raises(ValueError, match="all durations are 0"):
        decoder.decode(units(2), durations=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="one each"):
        decoder.decode_batch([units(2)], speakers=[], durations=["frames"])


def test_encode_gives_the_tokenizers_units(
    decoder: UnitDecoder, speech: Callable[..., np.ndarray]
) -> None:
    wave = speech(1.0, 3)
    codes = decoder.encode(wave, 16_000)
    assert decoder._tokenizer is not None
    assert np.array_equal(codes[0], decoder._tokenizer.open(device="cpu")(wave))


def test_external_embeddings(make_network: MakeNetwork, decoder: UnitDecoder) -> None:
    any_voice = UnitDecoder(make_network(speaker_dim=4), passport=decoder.passport)
    voice = np.array([1, 0, 2, -1], np.float32)
    one = any_voice.decode(units(4), speaker=voice).wave
    other = any_voice.decode(units(4), speaker=-voice).wave
    assert len(one) == 640
    assert not np.allclose(one, other)
    for wrong in (None, "anna", voice[:3]):
        with pytest.raises(ValueError, match="a speaker embedding of 4 numbers"):
            any_voice.decode(units(4), speaker=wrong)
    with pytest.raises(ConfigError, match="has no tokenizer"):
        any_voice.encode(np.zeros(8_000, np.float32), 16_000)


def test_units_at_50_hz_have_two_spectral_frames(make_network: MakeNetwork) -> None:
    network = make_network(frame_rate=50.0, frames_per_unit=2)
    assert (network.framing.hop, network.config.hop) == (160, 320)
    tokens, valid = torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.bool)
    wave = network.waves(tokens, torch.tensor([0]), valid, generator=torch.Generator())
    assert wave.shape == (1, 5 * 320)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_units": 0}, "at least one unit"),
        ({"speakers": ()}, "one speaker"),
        ({"frame_rate": 75.0}, "whole samples"),
        ({"fft": 100}, "window"),
    ],
)
def test_a_network_that_cannot_be_is_refused(changes: dict[str, object], why: str) -> None:
    good = NetworkConfig(num_units=4, frame_rate=100.0, speakers=("a",))
    with pytest.raises(ValueError, match=why):
        replace(good, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd"):
        BackboneConfig(kernel=4)


@pytest.fixture
def folder(stages: object, decoder: UnitDecoder, tmp_path: Path) -> Path:
    return tmp_path / "decoder"


def test_a_model_directory_comes_back(folder: Path, decoder: UnitDecoder) -> None:
    again = interface.load(folder)
    assert isinstance(again, UnitDecoder)
    assert again.passport.hash == decoder.passport.hash
    assert np.array_equal(again.decode(units(5)).wave, decoder.decode(units(5)).wave)
    assert "passport " + decoder.passport.hash[:16] in (folder / "README.md").read_text("utf-8")


def test_the_folder_of_a_run_stands_for_its_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"train": {}}', encoding="utf-8")
    folder.rename(run / "last")
    assert interface.load(run).name == "unit_decoder"
    assert interface.read_config(run)["codec"] == "unit_decoder"  # what speaking asks first


def test_damage_is_named(folder: Path, make_network: MakeNetwork) -> None:
    weights = folder / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"head"', '"tail"'), encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown field 'tail'"):
        load(folder)
    config.write_text('{"codec": "other"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="not a unit_decoder"):
        load(folder)


def test_another_tokenizer_beside_it_is_refused(
    folder: Path, tmp_path: Path, make_network: MakeNetwork
) -> None:
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    passport = replace(tokenizer.passport, deduplicate=not tokenizer.passport.deduplicate)
    other = tmp_path / "other"
    other.mkdir()
    save(other, make_network(), passport=passport, tokenizer=tokenizer, card=CARD)
    with pytest.raises(ConfigError, match="isn't the tokenizer"):
        load(other)
