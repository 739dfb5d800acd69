"""Mel-frequency cepstral coefficients as HuBERT's first iteration uses them; no weights.

Hsu et al. 2021 (HuBERT), arXiv 2106.07447, §4.2: 13 coefficients with first and second differences,
39 in all, every 10 ms. Conventions are Kaldi's (Povey et al. 2011), as its ``compute-mfcc-feats
--use-energy=false`` has them: 25 ms frames that lie wholly inside the waveform, DC removed,
pre-emphasis 0.97, Povey window, 512-point power spectrum, 23 mel bins from 20 Hz to 8 kHz, natural
log, orthonormal DCT-II, cepstral lifter 22. No dither, so the result is repeatable. Differences use
a window of 5 with the edge frames repeated. The waveform is in [-1, 1]; Kaldi's own 16-bit scale
would only shift the first coefficient.

Axes: B batch, N samples, T frames, D = 39.
"""

import hashlib
import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unitone.nn.mel import mel_filters

NUM_COEFFICIENTS = 13
NUM_MELS = 23
FFT = 512
FRAME, HOP = 400, 160
"""Samples at 16 kHz: 25 ms and 10 ms."""
LOW = 20.0
"""Hz; the highest band ends at Nyquist."""
PREEMPHASIS = 0.97
LIFTER = 22
FLOOR = torch.finfo(torch.float32).eps
"""Smallest mel energy before the logarithm, as in Kaldi."""


class MFCC:
    """The embedded default encoder: 39 coefficients at 100 Hz."""

    name = "mfcc"
    dim = 3 * NUM_COEFFICIENTS
    num_layers = 0
    hop = HOP
    receptive_field = FRAME
    longest: int | None = None
    normalize = False
    weight_hash = hashlib.sha256(b"mfcc 39, Kaldi conventions, version 1").hexdigest()

    def features(
        self, waveforms: Float[Tensor, "B N"], lengths: Int[Tensor, "B"], *, layer: int = 0
    ) -> Float[Tensor, "B T D"]:
        """Return coefficients and differences; frames after an utterance's last are zero."""
        num_frames = torch.div(lengths - FRAME, HOP, rounding_mode="floor") + 1
        static = cepstra(waveforms)
        last = (num_frames - 1).clamp(min=0)
        first_order = differences(static, last)
        features = torch.cat([static, first_order, differences(first_order, last)], dim=-1)
        if len(lengths) > 1:
            valid = torch.arange(features.shape[1], device=features.device) < num_frames[:, None]
            features = features * valid[:, :, None]
        return features


def load() -> MFCC:
    """Return the encoder; there is nothing to read."""
    return MFCC()


def cepstra(waveforms: Float[Tensor, "B N"]) -> Float[Tensor, "B T 13"]:
    """Return the 13 static coefficients of every whole frame."""
    frames = waveforms.unfold(-1, FRAME, HOP)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    # each frame is filtered on its own and its first sample stands in for the one before it
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window, mels, transform = _constants()
    frames = (frames - PREEMPHASIS * before) * window.to(frames)
    # the squared parts are summed at once: abs() would take a square root to be squared again
    power = torch.view_as_real(torch.fft.rfft(frames, n=FFT)).square().sum(dim=-1)
    energies = power[..., : FFT // 2] @ mels.to(frames)
    coefficients: Tensor = energies.clamp(min=FLOOR).log() @ transform.to(frames)
    return coefficients


def differences(values: Float[Tensor, "B T D"], last: Int[Tensor, "B"]) -> Float[Tensor, "B T D"]:
    """Return sum_n n (c[t+n] - c[t-n]) / 10 over n = 1, 2, edge frames repeated.

    ``last`` is the index of each row's last valid frame: what comes after it is never looked at.
    """
    time = torch.arange(values.shape[1], device=values.device)

    def at(offset: int) -> Tensor:
        index = (time + offset).clamp(min=0)[None].minimum(last[:, None])
        if len(last) == 1:  # several times faster, and on a CPU the usual case
            return values.index_select(1, index[0])
        return values.gather(1, index[:, :, None].expand_as(values))

    return (at(1) - at(-1) + 2 * (at(2) - at(-2))) / 10


@lru_cache(maxsize=1)
def _constants() -> tuple[Tensor, Tensor, Tensor]:
    """Return the window (400,), mel filters (256, 23) and lifted DCT (23, 13), float32."""
    n = torch.arange(FRAME, dtype=torch.float64)
    window = (0.5 - 0.5 * torch.cos(2 * math.pi * n / (FRAME - 1))) ** 0.85
    j = torch.arange(NUM_MELS, dtype=torch.float64)
    i = torch.arange(NUM_COEFFICIENTS, dtype=torch.float64)
    transform = torch.cos(math.pi / NUM_MELS * (j[:, None] + 0.5) * i) * math.sqrt(2 / NUM_MELS)
    transform[:, 0] = math.sqrt(1 / NUM_MELS)
    # Kaldi's triangles are straight in mel, and it leaves the Nyquist bin out
    filters = mel_filters(
        fft=FFT, num_mels=NUM_MELS, sample_rate=16_000, scale="htk", low=LOW, flanks="mel"
    )
    lifter = 1 + LIFTER / 2 * torch.sin(math.pi * i / LIFTER)
    return (
        window.float(),
        torch.from_numpy(filters[: FFT // 2]).float(),
        (transform * lifter).float(),
    )
