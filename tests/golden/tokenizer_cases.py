"""Golden cases of ``tokenizers/``: features of every encoder, centroids and units, subwords."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.golden import subject
from tests.golden.case import (
    Case,
    Tensors,
    from_bytes,
    generator,
    named,
    part,
    to_bytes,
    waveforms,
)

LAYERS, UNITS, SUBWORDS, TEXT_SUBWORDS = 2, 12, 18, 286
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "finds", "warm", "places")
PHRASE = "The quick fox, über 7 naïve dogs — 狐!"


def configuration(family: str, *, layer_norm: bool) -> dict[str, Any]:
    """Return the Hugging Face configuration of a tiny encoder."""
    return {
        "model_type": family,
        "hidden_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "conv_dim": [8] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": False,
        "feat_extract_norm": "layer" if layer_norm else "group",
        "do_stable_layer_norm": layer_norm,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "num_buckets": 32,
        "max_bucket_distance": 40,
        "layer_norm_eps": 1e-5,
    }


def draw_encoder(family: str, *, layer_norm: bool) -> Tensors:
    """Weights of Transformers' shapes and names, and two utterances."""
    import transformers

    settings = configuration(family, layer_norm=layer_norm)
    kind = "Hubert" if family == "hubert" else "WavLM"
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}Model")(config)
    draw, weights = generator(0), {}
    for name, value in sorted(model.state_dict().items()):
        if name == "masked_spec_embed":
            continue
        noise = torch.randn(value.shape, generator=draw)
        if value.ndim < 2 or "gru_rel_pos_const" in name:
            weights[name] = value.detach() * 0 + 0.2 * noise + (not name.endswith("bias"))
        elif name.endswith("original0"):
            weights[name] = 1 + 0.2 * noise
        else:
            weights[name] = noise / value[0].numel() ** 0.5
    waves, lengths = waveforms(0.2, 0.12)
    return named("weights.", weights) | {"waveforms": waves, "lengths": lengths}


def run_encoder(family: str, given: Tensors, folder: Path, *, layer_norm: bool) -> Tensors:
    settings = configuration(family, layer_norm=layer_norm)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(part(given, "weights."), folder / "model.safetensors")
    return run_features(given, folder, layers=LAYERS)


def run_features(given: Tensors, ssl: str | Path, *, layers: int) -> Tensors:
    waves = given["waveforms"].float() / 32768
    found = subject.features_of(ssl, waves, given["lengths"], layers)
    return {f"layer{number}": features for number, features in enumerate(found)}


def draw_mfcc() -> Tensors:
    waves, lengths = waveforms(0.2, 0.12)
    return {"waveforms": waves, "lengths": lengths}


def encoder(family: str, *, layer_norm: bool) -> Case:
    """Return the case of one form of a family."""
    return Case(
        draw=partial(draw_encoder, family, layer_norm=layer_norm),
        run=partial(run_encoder, family, layer_norm=layer_norm),
        atol=2e-5,  # layer norms of the front end enlarge rounding; measured with SSE: 8e-6
    )


def draw_kmeans() -> Tensors:
    """Frames that wander among six places, as speech does among sounds."""
    places = 3 * torch.randn(6, 8, generator=generator(0))
    order = torch.randint(6, (150,), generator=generator(1)).repeat_interleave(6)
    return {"frames": places[order] + torch.randn(len(order), 8, generator=generator(2))}


def run_kmeans(given: Tensors, folder: Path) -> Tensors:
    frames = given["frames"]
    centroids = subject.centroids_of(frames, 8)
    return {
        "centroids": centroids,
        "units": subject.units_with_penalty(frames, centroids, 0.0),
        "units_with_penalty": subject.units_with_penalty(frames, centroids, 4.0),
    }


def draw_subwords() -> Tensors:
    """Units of a language of ten words, text, and models that were trained on them."""
    words = [torch.randint(UNITS, (2 + n % 4,), generator=generator(n)) for n in range(10)]
    order = torch.randint(10, (400,), generator=generator(20)).tolist()
    units = torch.cat([words[number] for number in order]).int()
    text = " ".join(
        WORDS[number] for number in torch.randint(len(WORDS), (400,), generator=generator(21))
    )
    return {
        "units": units,
        "text": to_bytes(text),
        "unit_model": to_bytes(subject.unit_model(units, k=UNITS, subwords=SUBWORDS)),
        "text_model": to_bytes(subject.text_model(text, subwords=TEXT_SUBWORDS)),
    }


def run_subwords(given: Tensors, folder: Path) -> Tensors:
    """Ids by the stored models, and by models trained now."""
    units, text = given["units"], from_bytes(given["text"]).decode()
    trained = {
        "unit": subject.unit_model(units, k=UNITS, subwords=SUBWORDS),
        "text": subject.text_model(text, subwords=TEXT_SUBWORDS),
    }
    stored = {kind: from_bytes(given[f"{kind}_model"]) for kind in trained}
    found = {}
    for which, models in {"stored": stored, "trained": trained}.items():
        found[f"{which}.units"] = subject.unit_subwords(units, models["unit"])
        found[f"{which}.text"] = subject.text_ids(f"{text[:400]} {PHRASE}", models["text"])
    found["bytes"] = subject.text_ids(PHRASE, "bytes")
    found["characters"] = subject.text_ids(text[:400], "characters")
    return found


CASES = {
    "hubert-group-norm": encoder("hubert", layer_norm=False),
    "hubert-layer-norm": encoder("hubert", layer_norm=True),
    "wavlm-group-norm": encoder("wavlm", layer_norm=False),
    "wavlm-layer-norm": encoder("wavlm", layer_norm=True),
    "mfcc": Case(
        draw=draw_mfcc,
        run=lambda given, folder: run_features(given, "mfcc", layers=0),
        # the log of bands 75 dB under the loudest shows the FFT's rounding: against float64, 2.1e-3
        # where the numbers were made and 2.0e-3 on an Intel processor, which differ by 1.0e-3
        atol=3e-3,
    ),
    "kmeans": Case(draw=draw_kmeans, run=run_kmeans),
    "subwords": Case(draw=draw_subwords, run=run_subwords),
}
