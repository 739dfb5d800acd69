"""HuBERT and WavLM: shapes, layers, independence of batch mates, precisions, WavLM's bias."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from unitone.errors import ConfigError
from unitone.nn import linear
from unitone.nn.linear import LayerNorm, Linear, Precision, product
from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.encoders import hubert, wavlm
from unitone.tokenizers.encoders._architecture import Architecture, expected_shapes
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.encoders._frontend import FrontEnd, Stem, windows
from unitone.tokenizers.encoders._transformer import HeadBias, attend
from unitone.tokenizers.encoders._weights import Checkpoint, Hints

CPU = torch.device("cpu")
FAMILIES = {"hubert": hubert, "wavlm": wavlm}


def tiny(family: str, *, layer_norm: bool, **changes: object) -> Architecture:
    sizes = {
        "dim": 32,
        "ffn_dim": 48,
        "num_layers": 2,
        "num_heads": 2,
        "pre_norm": layer_norm,
        "normalize": layer_norm,
        "front_norm": "layer" if layer_norm else "group",
        "channels": (16,) * 7,
        "kernels": (10, 3, 3, 3, 3, 2, 2),
        "strides": (5, 2, 2, 2, 2, 2, 2),
        "conv_bias": False,
        "projects": True,
        "position_kernel": 16,
        "position_groups": 4,
        "num_buckets": 32 if family == "wavlm" else 0,
        "max_distance": 40,
        "epsilon": 1e-5,
    }
    return Architecture(**(sizes | changes))  # type: ignore[arg-type]


def checkpoint(architecture: Architecture, seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in expected_shapes(architecture).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "gate.scale")):
            weights[name] = 1 + 0.2 * noise
        elif len(shape) == 1:
            weights[name] = 0.2 * noise
        else:
            weights[name] = noise / math.sqrt(math.prod(shape[1:]))
    hints = Hints(num_heads=architecture.num_heads, max_distance=architecture.max_distance)
    return Checkpoint(weights=weights, hints=hints, where="memory")


def make(
    family: str, *, layer_norm: bool, precision: Precision = "fp32", num_blocks: int = 2
) -> SpeechEncoder:
    given_weights = checkpoint(tiny(family, layer_norm=layer_norm))
    name, architecture = FAMILIES[family].describe(given_weights)
    build: Callable[..., SpeechEncoder] = FAMILIES[family].build
    return build(
        given_weights, architecture, num_blocks, name=name, precision=precision, device=CPU
    )


@pytest.fixture(scope="module", params=[False, True], ids=["group", "layer"])
def layer_norm(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module", params=["hubert", "wavlm"])
def encoder(request: pytest.FixtureRequest, layer_norm: bool) -> SpeechEncoder:
    return make(request.param, layer_norm=layer_norm)


def noise(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    waveforms = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        waveforms[row, :length] = 0.1 * torch.randn(length, generator=generator)
    return waveforms, torch.tensor(lengths)


def test_the_protocol_s_facts(encoder: SpeechEncoder) -> None:
    assert (encoder.dim, encoder.num_layers) == (32, 2)
    assert (encoder.hop, encoder.receptive_field) == (320, 400)
    assert encoder.name in ("hubert-2x32", "wavlm-2x32")
    assert len(encoder.weight_hash) == 64


@pytest.mark.parametrize("num_samples", [400, 719, 720, 16_000, 32_000])
def test_number_of_frames(encoder: SpeechEncoder, num_samples: int) -> None:
    features = encoder.features(*noise(num_samples), layer=1)
    assert features.shape == (1, (num_samples - 400) // 320 + 1, 32)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_layer_zero_and_the_layers_differ(encoder: SpeechEncoder) -> None:
    waveforms, lengths = noise(8000)
    states = list(encoder.states(waveforms, lengths))
    assert len(states) == 3
    for layer, state in enumerate(states):
        assert torch.equal(encoder.features(waveforms, lengths, layer=layer), state)
    assert not torch.allclose(states[0], states[1])


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(400, 6_000), min_size=1, max_size=4),
    padding=st.integers(0, 3_000),
    garbage=st.floats(-1, 1),
    seed=st.integers(0, 1000),
)
def test_no_item_depends_on_batch_mates_or_padding(
    encoder: SpeechEncoder, lengths: list[int], padding: int, garbage: float, seed: int
) -> None:
    waveforms, sizes = noise(*lengths, seed=seed)
    padded = F.pad(waveforms, (0, padding))
    padded[torch.arange(padded.shape[1]) >= sizes[:, None]] = garbage
    together = encoder.features(padded, sizes, layer=2)
    for row, length in enumerate(lengths):
        alone = encoder.features(waveforms[row : row + 1, :length], sizes[row : row + 1], layer=2)
        num_frames = alone.shape[1]
        torch.testing.assert_close(together[row, :num_frames], alone[0], rtol=1e-5, atol=1e-5)
        assert not together[row, num_frames:].any()


def test_long_utterances_are_cut_into_tiles_without_a_seam(encoder: SpeechEncoder) -> None:
    """The front end works in tiles; a frame must not know where its tile began."""
    waveforms, lengths = noise(60_000)
    whole = encoder.features(waveforms, lengths, layer=0)
    assert isinstance(encoder._stem, Stem)
    front_end = encoder._stem.front_end
    frames = front_end(waveforms[0])
    assert len(frames) == whole.shape[1] > 128
    first = front_end._folded(waveforms[0]) if front_end.norms[0] is None else front_end.convs[0]
    torch.testing.assert_close(front_end._tile(waveforms[0], first), frames)


def test_group_norm_is_folded_exactly() -> None:
    architecture = tiny("hubert", layer_norm=False)
    weights = checkpoint(architecture)
    front_end = FrontEnd(weights, architecture, precision="fp32", device=CPU)
    waveform = noise(5_000)[0][0] + 0.3
    plain = F.conv1d(waveform[None, None], weights.weights["conv.0.weight"], stride=5)
    plain = F.group_norm(
        plain, 16, weights.weights["conv.0.norm.weight"], weights.weights["conv.0.norm.bias"]
    )
    rows = windows(waveform[:, None], kernel=10, stride=5)
    torch.testing.assert_close(front_end._folded(waveform)(rows), plain[0].T, rtol=1e-4, atol=1e-4)


def test_digital_silence_is_finite(encoder: SpeechEncoder) -> None:
    features = encoder.features(torch.zeros(1, 4000), torch.tensor([4000]), layer=2)
    assert features.isfinite().all()


def test_bf16_is_close_to_fp32(layer_norm: bool) -> None:
    waveforms, lengths = noise(16_000, 9_000)
    for family in FAMILIES:
        exact = make(family, layer_norm=layer_norm).features(waveforms, lengths, layer=2)
        fast = make(family, layer_norm=layer_norm, precision="bf16")
        features = fast.features(waveforms, lengths, layer=2)
        assert features.dtype == torch.float32
        assert torch.cosine_similarity(exact, features, dim=2)[0].mean() > 0.999


def test_only_the_blocks_asked_for_are_built(encoder: SpeechEncoder, layer_norm: bool) -> None:
    family = encoder.name.partition("-")[0]
    short = make(family, layer_norm=layer_norm, num_blocks=1)
    waveforms, lengths = noise(4000)
    assert short.weight_hash == encoder.weight_hash
    assert torch.equal(
        short.features(waveforms, lengths, layer=1), encoder.features(waveforms, lengths, layer=1)
    )
    with pytest.raises(ConfigError, match="built up to layer 1, not 2"):
        short.features(waveforms, lengths, layer=2)


def test_final_norm_is_there_for_the_last_layer_of_pre_norm_models_only(
    encoder: SpeechEncoder, layer_norm: bool
) -> None:
    waveforms, lengths = noise(4000)
    if not layer_norm:
        with pytest.raises(ConfigError, match="no final layer norm"):
            encoder.features(waveforms, lengths, layer=2, final_norm=True)
        return
    last = encoder.features(waveforms, lengths, layer=2)
    normed = encoder.features(waveforms, lengths, layer=2, final_norm=True)
    assert not torch.allclose(last, normed)
    with pytest.raises(ConfigError, match="after layer 1"):
        encoder.features(waveforms, lengths, layer=1, final_norm=True)


@pytest.mark.parametrize("length", [0, 399, 4001])
def test_impossible_lengths_are_refused(encoder: SpeechEncoder, length: int) -> None:
    with pytest.raises(ValueError, match=f"has {length} samples"):
        encoder.features(torch.zeros(1, 4000), torch.tensor([length]), layer=1)


def test_features_can_be_trained_on(encoder: SpeechEncoder) -> None:
    features = encoder.features(*noise(4000), layer=1)
    probe = torch.zeros(32, requires_grad=True)
    (features @ probe).sum().backward()
    assert probe.grad is not None


def test_names_without_an_encoder_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hubert-base, .*mfcc, .*wavlm-large"):
        load_encoder("hubertt", layer=1, precision="fp32", device=CPU)


def test_mfcc_is_reached_by_its_module_s_name() -> None:
    assert load_encoder("mfcc", layer=None, precision="fp32", device=CPU).name == "mfcc"


def test_buckets_at_the_corners() -> None:
    distances = torch.tensor([0, 1, -1, -79, 79, 80, -80, 160, 400, 800, 5000, -800, -5000])
    expected = [0, 161, 1, 79, 239, 240, 80, 264, 295, 319, 319, 159, 159]
    assert wavlm.bucket(distances, num_buckets=320, max_distance=800).tolist() == expected


def test_the_bias_of_every_pair_comes_from_its_bucket() -> None:
    table = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    bias = wavlm.RelativeBias(table, max_distance=40, device=CPU)
    for num_frames in (3, 600, 7):  # the second is longer than what is prepared
        frames = torch.arange(num_frames)
        distances = frames[None] - frames[:, None]  # key - query
        index = wavlm.bucket(distances, num_buckets=32, max_distance=40)
        assert torch.equal(bias(num_frames).flip(2), table[index].permute(2, 0, 1))


def test_attention_equals_the_textbook() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(37, 3 * 32, generator=generator)
    gate = torch.rand(2, 37, 1, generator=generator)
    distances = torch.randn(2, 37, 37, generator=generator)
    query, key, value = qkv.view(37, 3, 2, 16).permute(1, 2, 0, 3)
    logits = query @ key.transpose(1, 2)
    for bias in (None, HeadBias(gate=gate, distances=distances)):
        biased = logits if bias is None else logits + gate * distances.flip(2)
        expected = (biased.softmax(-1) @ value).transpose(0, 1).flatten(1)
        torch.testing.assert_close(attend(qkv, 2, bias), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("gelu", [False, True])
def test_fast_products_equal_their_plain_twins(
    precision: Precision, gelu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(40, 24, generator=generator), torch.randn(40, generator=generator)
    rows = torch.randn(33, 24, generator=generator)
    fast = Linear(weight, bias, precision=precision, device=CPU)(rows, gelu=gelu)
    fast_product = product(rows, weight)
    monkeypatch.setattr(linear, "has_onednn", lambda dtype: False)
    plain = Linear(weight, bias, precision=precision, device=CPU)(rows, gelu=gelu)
    assert fast.dtype == plain.dtype
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    torch.testing.assert_close(fast, plain, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(fast_product, product(rows, weight), rtol=1e-5, atol=1e-5)


def test_layer_norm_keeps_the_type() -> None:
    weights = {"n.weight": torch.full((8,), 2.0), "n.bias": torch.ones(8)}
    norm = LayerNorm(weights, "n", epsilon=1e-5, device=CPU)
    rows = torch.arange(16.0).view(2, 8)
    assert norm(rows.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(norm(rows).mean(dim=1), torch.ones(2))


def test_real_sizes_have_the_published_frame_geometry() -> None:
    assert tiny("hubert", layer_norm=True).receptive_field == 400
    assert tiny("hubert", layer_norm=True).hop == 320


def test_a_loaded_waveform_needs_no_special_dtype(
    encoder: SpeechEncoder, speech: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    waveform = torch.from_numpy(speech(0.5)).double()[None]
    features = encoder.features(waveform, torch.tensor([waveform.shape[1]]), layer=1)
    assert features.dtype == torch.float32
