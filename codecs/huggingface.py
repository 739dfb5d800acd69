"""Neural codecs of Transformers: EnCodec, DAC and Mimi, read from a local Hugging Face directory.

Defossez et al. 2022 (EnCodec, arXiv 2210.13438), Kumar et al. 2023 (DAC, arXiv 2306.06546),
Defossez et al. 2024 (Mimi, arXiv 2410.00037). All three quantize by residuals: level q refines what
the levels before it leave, so the first n levels are codes of their own, of lower quality.

Only mono codecs without chunks and without normalization, which decode from codes alone; EnCodec
at 48 kHz is none. Nothing is downloaded. Axes: N samples, Q levels, T frames.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int32

from unitone import devices
from unitone.codecs.codec import Sound, at_rate, check_codes, read_config
from unitone.corpus.audio import Samples
from unitone.errors import CheckpointError, ConfigError

NAME = "huggingface"
KINDS = ("encodec", "dac", "mimi")


class HuggingFaceCodec:
    """Codes and waveforms through a model of Transformers, one utterance at a time."""

    def __init__(self, model: Any, *, kind: str) -> None:
        """Wrap an ``EncodecModel``, ``DacModel`` or ``MimiModel``."""
        self.name = NAME
        self.kind = kind
        self.model = model.eval()
        config = model.config
        self.sample_rate = int(config.sampling_rate)
        if kind == "mimi":  # its frames are longer than the convolutions' hop
            self._hop = round(self.sample_rate / config.frame_rate)
        else:
            self._hop = int(config.hop_length)
        self.frame_rate = self.sample_rate / self._hop
        self.num_levels = int(config.n_codebooks if kind == "dac" else config.num_quantizers)
        self.codebook_size = int(config.codebook_size)

    @torch.inference_mode()
    def encode(self, wave: Samples, rate: int) -> Int32[np.ndarray, "Q T"]:
        """Return the codes of every level; memory grows with the length.

        A last frame that isn't full is filled up with zeros, as the originals have it.

        Raises:
            ValueError: shorter than one frame, or samples that are not finite.
        """
        samples = at_rate(wave, rate, wanted=self.sample_rate)
        if len(samples) < self._hop:
            raise ValueError(f"{len(samples)} samples are less than one frame of {self._hop}")
        if self.kind == "dac":  # its model would drop the rest; the others fill it up themselves
            samples = np.pad(samples, (0, -len(samples) % self._hop))
        options: dict[str, Any] = {}
        if self.kind == "encodec":
            options["bandwidth"] = self.model.config.target_bandwidths[-1]
        values = torch.from_numpy(samples)[None, None].to(self.model.device)
        codes = self.model.encode(values, **options).audio_codes
        found: np.ndarray = codes.reshape(self.num_levels, -1).cpu().numpy().astype(np.int32)
        return found

    @torch.inference_mode()
    def decode(
        self, codes: Int[np.ndarray, "..."], *, speaker: str | Float[np.ndarray, "E"] | None = None
    ) -> Sound:
        """Return the waveform of the first levels ``(n, T)``, of one ``(T,)``, or of all.

        Raises:
            ValueError: wrong shape, a code outside the codebook, or a speaker: codes have a voice.
        """
        if speaker is not None:
            raise ValueError("codes of a neural codec hold the voice; it can't be chosen")
        given = min(len(codes), self.num_levels) if codes.ndim == 2 and len(codes) else 1
        levels = check_codes(codes, num_levels=given, codebook_size=self.codebook_size)
        tensor = torch.from_numpy(levels.astype(np.int64))[None].to(self.model.device)
        if self.kind == "encodec":
            made = self.model.decode(tensor[None], [None])
        else:
            made = self.model.decode(audio_codes=tensor)
        wave = made.audio_values.reshape(-1)[: levels.shape[1] * self._hop].float().cpu().numpy()
        missing = levels.shape[1] * self._hop - len(wave)  # DAC loses some at odd strides
        return Sound(np.pad(wave, (0, missing)), self.sample_rate)


def load(path: Path | str, *, device: str = "cpu") -> HuggingFaceCodec:
    """Read a directory that ``save_pretrained`` wrote, or that was fetched from the hub.

    Raises:
        ConfigError: there is no such directory, Transformers is not installed, or the codec is of
            another kind.
        CheckpointError: the weights are missing or damaged.
    """
    path = Path(path)
    config = read_config(path)
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ConfigError(f"{path} holds a {kind}; the codecs that are read: {', '.join(KINDS)}")
    for name, plain in (("audio_channels", 1), ("normalize", False), ("chunk_length_s", None)):
        if config.get(name, plain) != plain:
            raise ConfigError(
                f"{path}: {name} is {config[name]}; its codes alone are not enough. Take a mono "
                "codec without chunks, such as facebook/encodec_24khz"
            )
    return HuggingFaceCodec(_read(path, kind).to(devices.resolve(device)), kind=kind)


def _read(path: Path, kind: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("neural codecs need Transformers: pip install 'unitone[hf]'") from error
    names = {"encodec": "EncodecModel", "dac": "DacModel", "mimi": "MimiModel"}
    logs: Any = transformers.utils.logging
    bars = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        model, report = getattr(transformers, names[kind]).from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # Transformers lets through whatever its readers raise
        raise CheckpointError(
            f"{path} is damaged or incomplete ({error}); fetch it again"
        ) from error
    finally:
        if bars:
            logs.enable_progress_bar()
    if report["missing_keys"]:  # they would be drawn at random, with no more than a warning
        missing = sorted(report["missing_keys"])[0]
        raise CheckpointError(f"{path} has no tensor {missing!r}; fetch it again")
    return model
