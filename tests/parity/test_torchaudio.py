"""MFCC against torchaudio's Kaldi-compatible one, in the Python that has fairseq and torchaudio."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from unitone.tokenizers.encoders.mfcc import MFCC

REFERENCE = """
import sys, numpy as np, torch, torchaudio
waveform = torch.from_numpy(np.load(sys.argv[1]))[None]
static = torchaudio.compliance.kaldi.mfcc(waveform, sample_frequency=16000, use_energy=False).T
first = torchaudio.functional.compute_deltas(static)
second = torchaudio.functional.compute_deltas(first)
np.save(sys.argv[2], torch.cat([static, first, second]).T.numpy())
"""


@pytest.mark.parity
def test_mfcc_equals_torchaudio(tmp_path: Path, speech: Callable[..., np.ndarray]) -> None:
    python = os.environ.get("UNITONE_FAIRSEQ_PYTHON")
    if not python:
        pytest.skip("UNITONE_FAIRSEQ_PYTHON names no Python with torchaudio; see make test-parity")
    samples = speech(10.0)
    np.save(tmp_path / "in.npy", samples)
    subprocess.run([python, "-c", REFERENCE, tmp_path / "in.npy", tmp_path / "out.npy"], check=True)
    theirs = np.load(tmp_path / "out.npy")
    ours = MFCC().features(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0].numpy()

    assert ours.shape == theirs.shape
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.999999
    # float32 sums of 512-point spectra, in an order of their own, on values of up to 60
    assert np.abs(ours - theirs).max() < 2e-3
