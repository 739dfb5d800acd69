"""Exported models in Transformers' own code, in a process of its own."""

import dataclasses
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unitone.lm import export, family
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.template import TASKS
from unitone.lm.interop.pretrained import initialize, read
from unitone.lm.options import Precision
from unitone.nn.rotary import RopeScaling
from unitone.nn.transformer import TransformerConfig

REFERENCE = """
import sys
from pathlib import Path
import numpy as np, torch
from transformers import AutoModelForCausalLM
folder, dtype, out = sys.argv[1], getattr(torch, sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
model, info = AutoModelForCausalLM.from_pretrained(
    folder, torch_dtype=dtype, output_loading_info=True, attn_implementation="sdpa")
model.eval()
for name in ("missing_keys", "mismatched_keys"):
    assert not info[name], (name, info[name])
tokens = torch.from_numpy(np.load(out / "tokens.npy"))
with torch.no_grad():
    logits = model(tokens).logits
    greedy = model.generate(tokens[:1, :4], max_new_tokens=12, min_new_tokens=12, do_sample=False)
np.savez(out / "theirs.npz", logits=logits.float().numpy(), greedy=greedy.numpy(),
         unexpected=np.array(sorted(info["unexpected_keys"])),
         kind=np.array(type(model).__name__))
"""

VOCABULARY = Vocabulary.build(text=256, units=500, tasks=["asr"])
SHAPE = TransformerConfig(dim=64, layers=3, heads=4, kv_heads=4, ffn=96)
PLAIN = ModelConfig(transformer=SHAPE, vocab_size=len(VOCABULARY), context=128)
GROUPED = dataclasses.replace(SHAPE, kv_heads=2, rope_theta=500_000.0, norm_eps=1e-6)
LLAMA3 = dataclasses.replace(  # of 40 positions 16 are new; pairs are kept, slowed, and between
    GROUPED,
    rope_theta=10_000.0,
    head_width=24,
    rope_scaling=RopeScaling(kind="llama3", factor=8.0, high_freq_factor=3.0, original_context=24),
)
LINEAR = dataclasses.replace(
    SHAPE, head_width=8, rope_scaling=RopeScaling(kind="linear", factor=4.0)
)
CONFIGS = {
    "tied": PLAIN,
    "grouped-untied": dataclasses.replace(PLAIN, transformer=GROUPED, tied=False),
    "one-key-head": dataclasses.replace(PLAIN, transformer=dataclasses.replace(SHAPE, kv_heads=1)),
    "llama3-wide-heads": dataclasses.replace(PLAIN, transformer=LLAMA3),
    "linear-narrow-heads": dataclasses.replace(PLAIN, transformer=LINEAR),
    "features-voice": dataclasses.replace(PLAIN, features=5, voice=7, tied=False),
}
ALL = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]


def build(config: ModelConfig) -> LanguageModel:
    """Return a model with weights large enough that its logits are far apart."""
    generator = torch.Generator().manual_seed(0)
    model = LanguageModel(config, generator=generator).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(50 if "embedding" in name or "output" in name else 5)
            else:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def saved(folder: Path, config: ModelConfig) -> Path:
    family.save(folder / "best", model=build(config), vocabulary=VOCABULARY, table=TASKS[:1])
    tokens = torch.randint(
        0, config.vocab_size, (3, 40), generator=torch.Generator().manual_seed(1)
    )
    np.save(folder / "tokens.npy", tokens.numpy())
    return folder / "best"


def theirs(model: Path, *, dtype: str, out: Path) -> dict[str, np.ndarray]:
    command = [sys.executable, "-W", "ignore", "-c", REFERENCE, str(model), dtype, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(out / "theirs.npz"))


def exported(folder: Path, config: ModelConfig, precision: Precision) -> Path:
    arguments = ["--model", str(saved(folder, config)), "--out", str(folder / "hf")]
    assert export.main([*arguments, "--to", "hf", "--precision", precision]) == 0
    return folder / "hf"


@torch.no_grad()
def ours(folder: Path, precision: Precision) -> torch.Tensor:
    model = family.load(folder / "best", device="cpu", precision=precision).model
    tokens = torch.from_numpy(np.load(folder / "tokens.npy"))
    logits: torch.Tensor = model.head(model(tokens)).float()
    return logits


@ALL
def test_fp32_logits(tmp_path: Path, config: ModelConfig) -> None:
    found = theirs(exported(tmp_path, config, "fp32"), dtype="float32", out=tmp_path)
    assert str(found["kind"]) == "LlamaForCausalLM"
    assert not len(found["unexpected"])
    logits = torch.from_numpy(found["logits"])
    expected = ours(tmp_path, "fp32")
    assert logits.shape == expected.shape
    assert expected.abs().max() > 10
    difference = (logits - expected).abs().max()
    assert difference <= 1e-4


@ALL
def test_bf16_logits(tmp_path: Path, config: ModelConfig) -> None:
    found = theirs(exported(tmp_path, config, "bf16"), dtype="bfloat16", out=tmp_path)
    logits, expected = torch.from_numpy(found["logits"]), ours(tmp_path, "bf16")
    agree = (logits.argmax(-1) == expected.argmax(-1)).float().mean()
    assert agree >= 0.97  # two numbers of 8 bits may tie


def test_a_model_directory_is_loaded_as_it_is(tmp_path: Path) -> None:
    config = CONFIGS["features-voice"]
    found = theirs(saved(tmp_path, config), dtype="float32", out=tmp_path)
    expected = ours(tmp_path, "fp32")
    difference = (torch.from_numpy(found["logits"]) - expected).abs().max()
    assert difference <= 1e-4
    assert all(name.startswith("unitone.projections.") for name in found["unexpected"])


def test_greedy_continuation(tmp_path: Path) -> None:
    config = CONFIGS["llama3-wide-heads"]
    found = theirs(exported(tmp_path, config, "fp32"), dtype="float32", out=tmp_path)
    model = family.load(tmp_path / "best", device="cpu").model
    tokens = torch.from_numpy(found["greedy"])[:, :4]
    with torch.no_grad():
        while tokens.shape[1] < 16:
            logits = model.head(model(tokens))[:, -1]
            logits[:, VOCABULARY.eos_id] = -torch.inf
            tokens = torch.cat((tokens, logits.argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(tokens, torch.from_numpy(found["greedy"]))


SCALED = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
SCALED |= {"original_max_position_embeddings": 24}
STARTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama3": {"head_dim": 24, "rope_scaling": {"rope_type": "llama3"} | SCALED},
    "linear": {"head_dim": 4, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "mistral": {"model_type": "mistral", "head_dim": 16, "sliding_window": None},
}


@pytest.mark.parametrize("changes", STARTS.values(), ids=STARTS)
def test_a_transformers_model_is_a_start(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What `save_pretrained` writes is read back: every row kept, the logits are the same."""
    script = """
import json, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
torch.manual_seed(0)
fields = dict(model_type="llama", hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, intermediate_size=48, vocab_size=101, max_position_embeddings=64)
config = AutoConfig.for_model(**fields | json.loads(sys.argv[2]))
model = AutoModelForCausalLM.from_config(config).eval()
for parameter in model.parameters():
    parameter.data.add_(0.1 * torch.randn_like(parameter))
model.save_pretrained(sys.argv[1], max_shard_size="30KB")
tokens = torch.arange(60)[None]
torch.save(model(tokens).logits.detach(), sys.argv[1] + "/logits.pt")
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path), json.dumps(changes)],
        check=True,
        capture_output=True,
    )
    pretrained = read(tmp_path)
    assert isinstance(pretrained.config, ModelConfig)
    shape = pretrained.config.transformer
    assert shape.head_width == changes.get("head_dim")
    assert (shape.rope_scaling is None) == ("rope_scaling" not in changes)
    model = LanguageModel(pretrained.config).eval()
    rows = {row: row for row in range(101)}
    initialize(model, pretrained, rows=rows, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.head(model(torch.arange(60)[None]))
    expected = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
