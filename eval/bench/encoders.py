"""How fast the SSL encoders are beside Transformers: same weights, audio, threads, one run.

``python -m unitone.eval.bench.encoders``: for each model, random weights at the real sizes are
written once and loaded by both. Engines take turns over the same utterances, one after the other
and without padding; the medians of their times are compared. Needs ``pip install 'unitone[hf]'``.

Columns: seconds of audio per second; the ratio to Transformers with all layers and to Transformers
cut to the layer; the share of what lone products of the model's shapes reach in that precision; the
mean and least cosine of a frame with Transformers' float32 feature; and the
share of frames whose unit is that of our float32 features, for codebooks of other frames.
"""

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitone import seeding
from unitone.config import command_line
from unitone.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unitone.eval.bench.limits import Product

SAMPLE_RATE = 16_000
SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
    "tiny": {  # for a test of the benchmark itself
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
}


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    models: tuple[str, ...] = ("hubert-base:9", "wavlm-large:21")
    """Family, size (tiny, base, large) and layer."""
    seconds: float = 30.0
    """Audio per repetition."""
    utterance: float = 15.0
    """Length of a synthetic utterance in seconds."""
    agreement_seconds: float = 120.0
    """Audio for the agreement of units; half of it makes the codebooks."""
    ks: tuple[int, ...] = (100, 2000)
    repeats: int = 5
    threads: int = 2
    manifest: Path | None = None
    """JSONL of real speech, read in order; default: modulated noise."""
    device: str = "cpu"
    """cpu or cuda; on a GPU the limit is that of large bf16 products."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    name: str
    features: "Callable[[Tensor], Tensor]"
    """Waveform (N,) to features (T, D) of the layer."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print one table a model."""
    config = command_line(BenchConfig, argv, __doc__)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(config.threads)
    print(
        f"torch {torch.__version__}, {config.threads} threads, {config.device}, "
        f"{config.seconds:g} s of audio, medians of {config.repeats} alternating repetitions"
    )
    for model in config.models:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            print(_bench(model, config, Path(folder)))
    return 0


def _bench(model: str, config: BenchConfig, folder: Path) -> str:
    import torch

    name, _, layer_text = model.partition(":")
    layer, device = int(layer_text), torch.device(config.device)
    reference = _reference(name, device)
    reference.save_pretrained(folder)
    engines, normalize = _engines(reference, folder, layer, device)
    needed = max(config.seconds, config.agreement_seconds)
    utterances = _utterances(config, needed, normalize=normalize)
    timed = _first_seconds(utterances, config.seconds)
    audio_seconds = sum(map(len, timed)) / SAMPLE_RATE

    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    outputs: dict[str, Tensor] = {}
    for repeat in range(-1, config.repeats):  # the first round warms up and is not counted
        for engine in engines:
            started = time.perf_counter()
            parts = [engine.features(waveform) for waveform in timed]
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 0:
                times[engine.name].append(time.perf_counter() - started)
            outputs[engine.name] = torch.cat(parts).float().cpu()
    speeds = {name: audio_seconds / statistics.median(times[name]) for name in times}
    agreements = _agreements(engines, utterances, config)
    lines = _table(model, speeds, outputs, agreements, config)
    lines += _limit_lines(reference.config, layer, speeds, config)
    return "\n".join(["", *lines])


def _reference(name: str, device: "torch.device") -> Any:
    """Return a Transformers model with random weights, none of which is trivial."""
    import torch

    try:
        from transformers import HubertConfig, HubertModel, WavLMConfig, WavLMModel
        from transformers.utils import logging
    except ImportError:
        raise ConfigError("the comparison needs `pip install 'unitone[hf]'`") from None
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    family, _, size = name.partition("-")
    classes = {"hubert": (HubertModel, HubertConfig), "wavlm": (WavLMModel, WavLMConfig)}
    if family not in classes or size not in SIZES:
        raise ConfigError(f"model must be hubert or wavlm, -{', -'.join(SIZES)}, got {name}")
    model_class, config_class = classes[family]
    model = model_class(config_class(**SIZES[size])).eval()
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        noise = torch.empty_like(parameter).normal_(generator=generator)
        if parameter.ndim == 1 or "rel_pos" in key:
            parameter.data.add_(0.1 * noise)
        elif "original0" not in key:  # the magnitudes of the weight norm stay as they are
            parameter.data.copy_(noise / parameter[0].numel() ** 0.5)
    return model.to(device)


def _engines(
    reference: Any, folder: Path, layer: int, device: "torch.device"
) -> tuple[list[Engine], bool]:
    import copy

    import torch

    from unitone.tokenizers.encoder import Encoder, load_encoder

    cut = copy.copy(reference)
    cut._modules = {**reference._modules, "encoder": copy.copy(reference.encoder)}
    cut.encoder._modules = {
        **reference.encoder._modules,
        "layers": reference.encoder.layers[:layer],
    }

    def whole(model: Any) -> "Callable[[Tensor], Tensor]":
        def features(waveform: "Tensor") -> "Tensor":
            answer = model(waveform[None].to(device), output_hidden_states=model is reference)
            states = answer.hidden_states
            state: Tensor = answer.last_hidden_state if states is None else states[layer]
            return state[0]

        return features

    def ours(encoder: Encoder) -> "Callable[[Tensor], Tensor]":
        def features(waveform: "Tensor") -> "Tensor":
            lengths = torch.tensor([len(waveform)])
            return encoder.features(waveform[None], lengths, layer=layer)[0]

        return features

    fp32 = load_encoder(folder, layer=layer, precision="fp32", device=device)
    bf16 = load_encoder(folder, layer=layer, precision="bf16", device=device)
    return [
        Engine(name="Transformers, all layers", features=whole(reference)),
        Engine(name="Transformers, cut", features=whole(cut)),
        Engine(name="ours fp32", features=ours(fp32)),
        Engine(name="ours bf16", features=ours(bf16)),
    ], fp32.normalize


def _utterances(config: BenchConfig, seconds: float, *, normalize: bool) -> "list[Tensor]":
    import torch

    waveforms: list[Tensor] = []
    source = _real(config.manifest) if config.manifest else _noise(config.utterance)
    for waveform in source:
        if normalize:
            waveform = (waveform - waveform.mean()) / (waveform.std() + 1e-5)
        waveforms.append(torch.from_numpy(waveform.astype(np.float32)))
        if sum(map(len, waveforms)) >= seconds * SAMPLE_RATE:
            return waveforms
    raise ConfigError(f"{config.manifest} has less than {seconds:g} s of audio")


def _real(manifest: Path) -> Iterator[np.ndarray]:
    import json

    import soundfile

    for line in manifest.read_text(encoding="utf-8").splitlines():
        samples, rate = soundfile.read(manifest.parent / json.loads(line)["audio"])
        if rate == SAMPLE_RATE:
            yield samples


def _noise(seconds: float) -> Iterator[np.ndarray]:
    """Yield noise whose loudness changes ten times a second, as speech's does."""
    count = round(seconds * SAMPLE_RATE)
    knots = np.arange(0, count + SAMPLE_RATE // 10, SAMPLE_RATE // 10)
    index = 0
    while True:
        draw = seeding.stream(0, "bench", index)
        envelope = np.interp(np.arange(count), knots, draw.uniform(0.001, 0.3, len(knots)))
        smooth = np.convolve(draw.standard_normal(count), np.hanning(9) / 4, mode="same")
        yield envelope * smooth
        index += 1


def _first_seconds(utterances: "list[Tensor]", seconds: float) -> "list[Tensor]":
    left = round(seconds * SAMPLE_RATE)
    chosen = []
    for waveform in utterances:
        if left >= 400:
            chosen.append(waveform[:left])
        left -= len(waveform)
    return chosen


def _agreements(
    engines: list[Engine], utterances: "list[Tensor]", config: BenchConfig
) -> dict[int, float]:
    """Return the share of equal units, ours bf16 with ours fp32, for each k."""
    import torch

    exact, fast = (
        torch.cat([engine.features(waveform) for waveform in utterances]).float().cpu()
        for engine in engines[-2:]
    )
    order = seeding.stream(0, "bench", "codebook").permutation(len(exact))
    pool, held_out = (torch.from_numpy(part) for part in np.array_split(order, 2))
    agreements = {}
    for k in config.ks:
        if k <= len(pool):
            codebook = exact[pool[:k]]
            one, other = (
                torch.cdist(frames[held_out], codebook).argmin(dim=1) for frames in (exact, fast)
            )
            agreements[k] = (one == other).float().mean().item()
    return agreements


def _table(
    model: str,
    speeds: dict[str, float],
    outputs: "dict[str, Tensor]",
    agreements: dict[int, float],
    config: BenchConfig,
) -> list[str]:
    import torch

    names = list(speeds)
    target = outputs[names[0]]
    units = "".join(f" units k={k} |" for k in config.ks)
    lines = [
        f"| {model} | audio s/s | ratio to all | ratio to cut | mean cosine | least |{units}",
        "| --- | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * len(config.ks),
    ]
    for name in names:
        row = f"| {name} | {speeds[name]:.1f} "
        row += f"| {speeds[name] / speeds[names[0]]:.2f} | {speeds[name] / speeds[names[1]]:.2f} |"
        if name.startswith("ours"):
            cosine = torch.cosine_similarity(outputs[name], target, dim=1)
            row += f" {cosine.mean():.6f} | {cosine.min():.6f} |"
        else:
            row += " | |"
        for k in config.ks:
            share = agreements.get(k) if name == "ours bf16" else None
            row += " |" if share is None else f" {share:.4f} |"
        lines.append(row)
    return lines


def _gpu_rate() -> float:
    """Return the bf16 operations per second of large products on the GPU."""
    import torch

    square = torch.ones(8192, 8192, dtype=torch.bfloat16, device="cuda")
    for repeat in range(-3, 10):
        if repeat == 0:
            torch.cuda.synchronize()
            started = time.perf_counter()
        _ = square @ square
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - started)


def _limit_lines(
    sizes: Any, layer: int, speeds: dict[str, float], config: BenchConfig
) -> list[str]:
    """Return the share of what lone products reach; attention's arithmetic is not counted."""
    import torch

    from unitone.eval.bench.limits import product_rate

    wanted = products(sizes, layer, seconds=config.utterance)
    work = sum(one.flops for one in wanted) / config.utterance
    if config.device == "cuda":
        rates = dict.fromkeys((torch.float32, torch.bfloat16), _gpu_rate())
    else:
        rates = {dtype: product_rate(wanted, dtype) for dtype in (torch.float32, torch.bfloat16)}
    lines = [""]
    for name, speed in list(speeds.items())[1:]:  # the first computes more layers
        rate = rates[torch.bfloat16 if name == "ours bf16" else torch.float32]
        lines.append(
            f"{name}: {work * speed / 1e12:.3f} TFLOP/s, {work * speed / rate:.0%} of the "
            f"{rate / 1e12:.3f} of lone products"
        )
    return lines


def products(sizes: Any, layer: int, *, seconds: float) -> "list[Product]":
    """Return the products of an utterance, convolutions as products, attention itself left out.

    Args:
        sizes: the Transformers configuration.
        layer: the last block computed.
        seconds: length of the utterance.
    """
    from unitone.eval.bench.limits import Product

    frames = round(seconds * SAMPLE_RATE / math.prod(sizes.conv_stride))
    dim, ffn, channels = sizes.hidden_size, sizes.intermediate_size, sizes.conv_dim
    groups = sizes.num_conv_pos_embedding_groups
    position = (dim // groups * sizes.num_conv_pos_embeddings, dim // groups, float(groups))
    found = [(channels[-1], dim, 1.0), position]
    for number, kernel in enumerate(sizes.conv_kernel):  # each has more rows than frames
        before = channels[number - 1] if number else 1
        found.append(
            (before * kernel, channels[number], math.prod(sizes.conv_stride[number + 1 :]))
        )
    blocks = ((dim, 3 * dim), (dim, dim), (dim, ffn), (ffn, dim))
    found += [(inputs, outputs, float(layer)) for inputs, outputs in blocks]
    return [
        Product(rows=frames, inputs=inputs, outputs=outputs, count=count)
        for inputs, outputs, count in found
    ]


if __name__ == "__main__":
    sys.exit(main())
