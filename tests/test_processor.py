"""The processor's instructions, and the precision that suits them."""

from pathlib import Path

import pytest
import torch

from unitone import devices, processor
from unitone.train.config import TrainConfig


@pytest.mark.parametrize(
    ("flags", "instruction", "precision"),
    [
        ("fpu avx2 avx512_bf16 amx_bf16", "amx_bf16", "bf16"),
        ("fpu avx2 avx512_bf16", "avx512_bf16", "bf16"),
        ("fpu avx2 avx512_vnni", "", "fp32"),
    ],
)
def test_bf16_is_used_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, instruction: str, precision: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n")
    monkeypatch.setattr(processor, "_CPUINFO", cpuinfo)
    assert processor.cpuinfo("model name") == "Some CPU"
    assert processor.bf16_instruction() == instruction
    assert devices.fast_precision(torch.device("cpu")) == precision
    config = TrainConfig(steps=1, lr=1.0, device="cpu", precision="auto")
    assert config.resolved().precision == precision


def test_elsewhere_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")
    assert processor.cpuinfo("model name") == ""
    assert processor.bf16_instruction() == ""
