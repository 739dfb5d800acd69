"""Every layer against Transformers, with random weights at the real sizes and in tiny."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.encoders._encoder import SpeechEncoder

REFERENCE = """
import json, sys
from pathlib import Path
import numpy as np, torch
import transformers
family, sizes, folder = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(2)
Config, Model = (getattr(transformers, family + part) for part in ("Config", "Model"))
torch.manual_seed(0)
model = Model(Config(**sizes)).eval()
for name, parameter in model.named_parameters():  # no norm, gate or bias at its trivial start
    noise = torch.randn_like(parameter)
    scale = 0.2 if parameter.ndim == 1 or "rel_pos" in name or "rel_attn" in name else 0.01
    parameter.data.add_(scale * noise)
for name, statistics in model.named_buffers():
    if "running" in name:
        statistics.data.add_(0.5 * torch.rand_like(statistics))
model.save_pretrained(folder)
waveform = torch.from_numpy(np.load(folder / "waveform.npy"))[None]
states = []
model.encoder.layers[0].register_forward_pre_hook(lambda m, a, k: states.append(
    (a[0] if a else k["hidden_states"]).clone()), with_kwargs=True)
for layer in model.encoder.layers:
    layer.register_forward_hook(lambda m, a, o: states.append(
        (o[0] if isinstance(o, tuple) else o).clone()))
with torch.no_grad():
    last = model(waveform).last_hidden_state
np.savez(folder / "states.npz", last=last[0].numpy(), states=torch.cat(states).numpy())
"""

CLASSES = {
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "wav2vec2": "Wav2Vec2",
    "unispeech-sat": "UniSpeechSat",
    "unispeech": "UniSpeech",
}
TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "conv_dim": [16, 16, 24, 24, 16, 16, 32],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
LARGE = LAYER_NORM | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
XLARGE = LAYER_NORM | {
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "intermediate_size": 5120,
}
REAL = [
    pytest.param("hubert", {}, id="hubert-base"),
    pytest.param("hubert", LARGE, id="hubert-large"),
    pytest.param("hubert", XLARGE, id="hubert-xlarge", marks=pytest.mark.slow),
    pytest.param("wavlm", {}, id="wavlm-base"),
    pytest.param("wavlm", LARGE, id="wavlm-large"),
]


def compare(family: str, sizes: dict[str, object], waveform: np.ndarray, folder: Path) -> None:
    if find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    np.save(folder / "waveform.npy", waveform)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        REFERENCE,
        CLASSES[family],
        json.dumps(sizes),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    theirs = np.load(folder / "states.npz")
    encoder = load_encoder(folder, layer=None, precision="fp32", device=torch.device("cpu"))
    assert isinstance(encoder, SpeechEncoder)
    samples, lengths = torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])

    ours = [state[0] for state in encoder.states(samples, lengths)]
    expected = torch.from_numpy(theirs["states"])
    if sizes.get("do_stable_layer_norm"):
        layer = encoder.num_layers
        ours.append(encoder.features(samples, lengths, layer=layer, final_norm=True)[0])
        expected = torch.cat([expected, torch.from_numpy(theirs["last"])[None]])
    assert len(ours) == len(expected)
    for layer, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.shape == other.shape
        assert torch.cosine_similarity(one, other, dim=1).min() >= 0.99999, f"layer {layer}"
        assert (one - other).abs().max() <= 1e-4, f"layer {layer}"


@pytest.mark.parametrize("front_end", [{}, LAYER_NORM], ids=["group", "layer"])
@pytest.mark.parametrize("family", ["hubert", "wavlm"])
@pytest.mark.parity
def test_tiny(family: str, front_end: dict[str, object], tmp_path: Path, noise: np.ndarray) -> None:
    compare(family, TINY | front_end, noise, tmp_path)


@pytest.mark.parametrize("front_end", [{}, LAYER_NORM], ids=["group", "layer"])
@pytest.mark.parametrize("family", ["wav2vec2", "unispeech-sat", "unispeech"])
@pytest.mark.parity
def test_models_that_are_built_like_hubert_have_their_own_name(
    family: str, front_end: dict[str, object], tmp_path: Path, noise: np.ndarray
) -> None:
    compare(family, TINY | front_end, noise[:32_000], tmp_path)
    encoder = load_encoder(tmp_path, layer=1, precision="fp32", device=torch.device("cpu"))
    assert encoder.name == f"{family}-3x48"


@pytest.mark.parametrize("front_end", [{}, LAYER_NORM], ids=["group", "layer"])
@pytest.mark.parametrize("more", [{"layer_norm_eps": 1e-1}, {"conv_pos_batch_norm": True}], ids=str)
@pytest.mark.parity
def test_what_a_configuration_says_is_done(
    more: dict[str, object], front_end: dict[str, object], tmp_path: Path, noise: np.ndarray
) -> None:
    compare("hubert", TINY | front_end | more, noise[:32_000], tmp_path)


@pytest.mark.parametrize(("family", "sizes"), REAL)
@pytest.mark.parity
def test_real_sizes(
    family: str, sizes: dict[str, object], tmp_path: Path, noise: np.ndarray
) -> None:
    compare(family, sizes, noise[: 16_000 * 3], tmp_path)


@pytest.fixture
def noise() -> np.ndarray:
    """Noise of changing loudness: 20 s, so that distances pass WavLM's largest, 800 frames."""
    draw = np.random.default_rng(0)
    envelope = np.interp(np.arange(320_000), np.arange(0, 320_001, 1600), draw.uniform(0, 1, 201))
    return (envelope * draw.standard_normal(320_000)).astype(np.float32)
