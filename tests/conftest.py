"""Fixtures and settings every test shares: one thread, seeded hypothesis, synthetic speech."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch and FAISS; subprocesses inherit it. The cores are for pytest's workers: networks this
# small are slower on two threads, and much slower beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings

SAMPLE_RATE = 16_000
ROOT = Path(__file__).resolve().parents[1]

Speech = Callable[..., np.ndarray]

settings.register_profile(
    "local", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("local"), max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-exact", action="store_true", help="golden numbers have to be equal to the bit"
    )


def pytest_configure() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def synthetic_speech(seconds: float, seed: int) -> np.ndarray:
    """Return float32 samples in [-1, 1] at 16 kHz: gliding harmonics, noise bursts and pauses.

    Syllables of 80 to 250 ms are voiced (a glide with eight harmonics), unvoiced (noise) or silent,
    so that every second has the variety that units, windows and voice statistics need.
    """
    rng = np.random.default_rng(seed)
    num_samples = round(seconds * SAMPLE_RATE)
    syllables: list[np.ndarray] = [np.zeros(0)]
    while sum(map(len, syllables)) < num_samples:
        length = int(rng.integers(1_280, 4_000))
        envelope = np.hanning(length)
        kind = rng.choice(["voiced", "unvoiced", "pause"], p=[0.6, 0.2, 0.2])
        if kind == "voiced":
            start, stop = rng.uniform(90, 260, size=2)
            pitch = np.linspace(float(start), float(stop), length)
            phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
            order = np.arange(1, 9)[:, None]
            weights = rng.uniform(0.2, 1.0, size=(8, 1)) / order
            syllables.append(0.2 * envelope * (weights * np.sin(order * phase)).sum(axis=0))
        elif kind == "unvoiced":
            syllables.append(0.05 * envelope * rng.standard_normal(length))
        else:
            syllables.append(1e-4 * rng.standard_normal(length))
    samples = np.concatenate(syllables)[:num_samples].astype(np.float32)
    return np.clip(samples, -1, 1)


@pytest.fixture(scope="session")
def speech() -> Speech:
    """``speech(seconds, seed=0)``: a seeded waveform, float32 ``(N,)`` at 16 kHz."""

    def make(seconds: float, seed: int = 0) -> np.ndarray:
        return synthetic_speech(seconds, seed)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Undo what a command's ``--threads`` has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> Path:
    """A folder with six 16-bit WAV files of 0.5 to 1.5 s and their ``manifest.jsonl``."""
    folder = tmp_path / "tiny-corpus"
    folder.mkdir()
    lines = []
    for index in range(6):
        name, seconds = f"utterance-{index}", 0.5 + 0.2 * index
        soundfile.write(
            folder / f"{name}.wav", synthetic_speech(seconds, index), SAMPLE_RATE, subtype="PCM_16"
        )
        row = {
            "id": name,
            "audio": f"{name}.wav",
            "text": f"SENTENCE {index}",
            "speaker": f"speaker-{index % 2}",
            "language": "en",
            "gender": ("female", "male")[index % 2],
            "duration": seconds,
            "split": "train",
        }
        lines.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_encodec() -> Callable[..., Path]:
    """``make_encodec(folder, levels=3, seed=0)``: an untrained EnCodec, 16 codes, 50 Hz, 16 kHz.

    Its codebooks are drawn at the scale of what comes to them, so that codes differ.
    """
    transformers = pytest.importorskip("transformers")

    def make(folder: Path, *, levels: int = 3, seed: int = 0) -> Path:
        generator = torch.Generator().manual_seed(seed)
        config = transformers.EncodecConfig(
            target_bandwidths=[0.2 * levels + 0.05],
            sampling_rate=SAMPLE_RATE,
            num_filters=2,
            hidden_size=8,
            codebook_dim=8,
            codebook_size=16,
            num_lstm_layers=1,
            upsampling_ratios=[8, 5, 4, 2],
        )
        model = transformers.EncodecModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn / max(parameter[0].numel(), 1) ** 0.5)
            wave = torch.from_numpy(synthetic_speech(2.0, 7))[None, None]
            found = model.encoder(wave)[0]
            for layer in model.quantizer.layers:
                drawn = torch.randn(16, 8, generator=generator)
                layer.codebook.embed.copy_(found.mean(1) + found.std(1) * drawn)
                found = found - layer.decode(layer.encode(found[None]))[0]
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; skips where it is not there."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "an4" / "manifest.jsonl").is_file():
        pytest.skip("no ../shared/data beside this checkout")
    return folder
