"""OPT against Transformers' OPTForCausalLM: both places of the norm, padding on either side."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unitone.lm.interop.opt import OptModel
from unitone.lm.interop.pretrained import initialize, read

REFERENCE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from transformers import OPTConfig, OPTForCausalLM
sizes, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
model = OPTForCausalLM(OPTConfig(**sizes)).eval()
for parameter in model.parameters():  # no norm or bias at its trivial start
    parameter.data.add_(0.1 * torch.randn_like(parameter))
model.save_pretrained(folder)
given = np.load(folder / "given.npz")
with torch.no_grad():
    logits = model(torch.from_numpy(given["tokens"]),
                   attention_mask=torch.from_numpy(given["valid"]).long()).logits
np.save(folder / "logits.npy", logits.numpy())
"""

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 50,
    "word_embed_proj_dim": 32,
}
LIKE_350M = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
UNTIED = {"tie_word_embeddings": False}

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "changes", [{}, LIKE_350M, UNTIED, LIKE_350M | UNTIED], ids=["125m", "350m", "untied", "voxtlm"]
)
@torch.no_grad()
def test_logits(tmp_path: Path, changes: dict[str, Any], side: str) -> None:
    length = 20
    lengths = torch.tensor([20, 13, 1, 7])
    place = torch.arange(length)
    if side == "left":
        valid = place >= length - lengths[:, None]
        positions = (place - (length - lengths[:, None])).clamp(min=0)
    else:
        valid, positions = place < lengths[:, None], place.expand(4, -1)
    tokens = torch.randint(0, 99, (4, length), generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "given.npz", tokens=tokens.numpy(), valid=valid.numpy())
    sizes = json.dumps(SIZES | changes)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REFERENCE, sizes, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    model = load(tmp_path)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = (causal & valid[:, None, :] | torch.eye(length, dtype=torch.bool))[:, None]
    logits = model.head(model(tokens, positions=positions, mask=mask))
    expected = torch.from_numpy(np.load(tmp_path / "logits.npy"))
    difference = (logits - expected)[valid].abs().max()
    assert expected.std() > 0.1
    assert difference <= 1e-4


def load(folder: Path) -> OptModel:
    pretrained = read(folder)
    model = OptModel(pretrained.config).eval()  # type: ignore[arg-type]
    rows = {row: row for row in range(99)}
    initialize(model, pretrained, rows=rows, generator=torch.Generator().manual_seed(0))
    return model
