"""HuBERT layer by layer against fairseq 0.12.2, from a checkpoint that fairseq's classes are in."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unitone import safe_pickle
from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.encoders._encoder import SpeechEncoder

REFERENCE = """
import sys, json
from pathlib import Path
import numpy as np, torch
from omegaconf import OmegaConf
from fairseq.data import Dictionary
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
def plain(config):  # as fairseq's trainer does, since its enumerations cannot be pickled
    return OmegaConf.to_container(config, resolve=False, enum_to_str=True)
folder, style, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
torch.set_num_threads(2)
torch.manual_seed(0)
cfg = OmegaConf.structured(HubertConfig(label_rate=50, **changes))
normalize = changes.get("layer_norm_first", False)
task = HubertPretrainingConfig(data="/", label_rate=50, normalize=normalize)
task = OmegaConf.structured(task)
dictionary = Dictionary()
for unit in range(20):
    dictionary.add_symbol(str(unit))
model = HubertModel(cfg, task, [dictionary]).eval()
for name, parameter in model.named_parameters():
    scale = 0.2 if parameter.ndim == 1 else 0.01
    parameter.data.add_(scale * torch.randn_like(parameter))
state = {"model": model.state_dict(), "task_state": {"dictionaries": [dictionary]},
         "optimizer_history": [{"num_updates": 1}], "args": None, "last_optimizer_state": None}
if style == "s3prl":
    state = {"model_weight": state["model"], "model_cfg": plain(cfg),
             "task_cfg": plain(task), "dictionaries_symbols": [dictionary.symbols]}
elif style == "args":
    import argparse
    state["args"] = argparse.Namespace(normalize=task.normalize, **changes)
else:
    state["cfg"] = OmegaConf.create({"model": plain(cfg), "task": plain(task)})
torch.save(state, folder / "hubert.pt", _use_new_zipfile_serialization=style != "args")
waveform = torch.from_numpy(np.load(folder / "waveform.npy"))[None]
with torch.no_grad():
    states = [model.extract_features(waveform, output_layer=n)[0][0].numpy()
              for n in range(1, cfg.encoder_layers + 1)]
np.save(folder / "states.npy", np.stack(states))
"""

LARGE = {"extractor_mode": "layer_norm", "layer_norm_first": True}
TINY = {
    "encoder_layers": 3,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 4,  # 16 wide: only the checkpoint's configuration can tell
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2",
    "final_dim": 16,
    "conv_pos": 32,
    "conv_pos_groups": 4,
}
BIG = {
    "encoder_layers": 24,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "final_dim": 768,
}
CASES = [
    pytest.param(TINY, "cfg", id="tiny-group"),
    pytest.param(TINY | LARGE, "cfg", id="tiny-layer"),
    pytest.param(TINY | LARGE, "s3prl", id="tiny-s3prl"),
    pytest.param(TINY | LARGE, "args", id="tiny-legacy"),
    pytest.param({}, "cfg", id="base"),
    pytest.param(BIG | LARGE, "cfg", id="large"),
]


@pytest.mark.parity
@pytest.mark.parametrize(("changes", "style"), CASES)
def test_every_layer_and_both_forms(changes: dict[str, object], style: str, tmp_path: Path) -> None:
    python = os.environ.get("UNITONE_FAIRSEQ_PYTHON")
    if not python:
        pytest.skip("UNITONE_FAIRSEQ_PYTHON names no Python with fairseq; see make test-parity")
    draw = np.random.default_rng(0)
    waveform = draw.standard_normal(40_000).astype(np.float32)
    np.save(tmp_path / "waveform.npy", waveform)
    command = [python, "-W", "ignore", "-c", REFERENCE, str(tmp_path), style, json.dumps(changes)]
    subprocess.run(command, check=True, capture_output=True)
    samples, lengths = torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])

    theirs = torch.from_numpy(np.load(tmp_path / "states.npy"))
    encoder = load(tmp_path / "hubert.pt")
    ours = torch.cat(list(encoder.states(samples, lengths)))[1:]

    assert encoder.normalize == ("layer_norm_first" in changes)
    assert ours.shape == theirs.shape
    assert torch.cosine_similarity(ours, theirs, dim=2).min() >= 0.99999
    assert (ours - theirs).abs().max() <= 1e-4

    other_form = load(to_hugging_face(tmp_path, changes))
    assert other_form.weight_hash == encoder.weight_hash
    assert torch.equal(torch.cat(list(other_form.states(samples, lengths)))[1:], ours)


def load(path: Path) -> SpeechEncoder:
    encoder = load_encoder(path, layer=None, precision="fp32", device=torch.device("cpu"))
    assert isinstance(encoder, SpeechEncoder)
    return encoder


def to_hugging_face(folder: Path, changes: dict[str, object]) -> Path:
    """Write the weights of ``hubert.pt`` under Transformers' names, with its new weight norm."""
    names = (
        (r"conv_layers\.(\d)\.0\.", r"conv_layers.\1.conv."),
        (r"conv_layers\.(\d)\.2\.(1\.)?", r"conv_layers.\1.layer_norm."),
        (r"^layer_norm\.", "feature_projection.layer_norm."),
        (r"^post_extract_proj", "feature_projection.projection"),
        (r"pos_conv\.0\.bias", "pos_conv_embed.conv.bias"),
        (r"pos_conv\.0\.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
        (r"pos_conv\.0\.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
        (r"self_attn_layer_norm", "layer_norm"),
        (r"self_attn\.", "attention."),
        (r"fc1", "feed_forward.intermediate_dense"),
        (r"fc2", "feed_forward.output_dense"),
        (r"^mask_emb$", "masked_spec_embed"),
    )
    top = safe_pickle.load_torch(folder / "hubert.pt")
    weights = {}
    for name, weight in (top.get("model") or top["model_weight"]).items():
        if name.startswith(("final_proj", "label_embs")):
            continue
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        weights[name] = weight.contiguous()
    target = folder / "hugging-face"
    target.mkdir()
    save_file(weights, target / "model.safetensors")
    config = {
        "num_attention_heads": changes.get("encoder_attention_heads", 12),
        "do_stable_layer_norm": changes.get("layer_norm_first", False),
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target
