"""The ASR judge: intelligibility of synthesized speech, by a recognizer of other speakers.

Intelligibility is the character error rate of a recognizer that is independent of what it judges:
trained on recordings of other speakers, of waveforms and not of units, without a language model. It
errs on real recordings as well; that ground-truth CER is always reported beside the score.

A model directory: ``model.safetensors``, ``config.json``, ``README.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unitone import config as configs
from unitone import devices, files, model_dir
from unitone.corpus.audio import SAMPLE_RATE, Samples, waveform_of
from unitone.errors import CheckpointError, ConfigError
from unitone.eval.judge.model import (
    WINDOW,
    Network,
    NetworkConfig,
    collapse,
    log_mel,
    normalized,
    outputs_of,
    padded,
)
from unitone.eval.normalizers import NormalizerName
from unitone.model_dir import CARD, CONFIG, WEIGHTS
from unitone.train.checkpoint import save_tensors

BATCH_FRAMES = 8_000
"""Frames of 10 ms recognized together, padding included."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an ASR judge was trained on."""

    normalizer: NormalizerName
    """How texts are written."""
    speakers: tuple[str, ...]
    """Whose recordings they are."""
    utterances: int
    seconds: float
    manifest: str
    split: str | None


class Judge:
    """A recognizer of 16 kHz waveforms."""

    def __init__(self, network: Network, origin: Origin) -> None:
        self.network = network.eval()
        self.origin = origin

    def transcribe(self, waves: Sequence[Samples]) -> list[str]:
        """Return the text of each waveform (16 kHz); shorter than 32 ms is nothing.

        Raises:
            ValueError: one is no waveform; see `unitone.corpus.audio.waveform_of`.
        """
        waves = [waveform_of(wave, SAMPLE_RATE) if len(wave) else wave for wave in waves]
        network = self.network
        device = next(network.parameters()).device
        features = {
            place: normalized(log_mel(wave, network.config.num_mels))
            for place, wave in enumerate(waves)
            if len(wave) >= WINDOW
        }
        texts = [""] * len(waves)
        order = sorted(features, key=lambda place: -len(features[place]))
        while order:
            rows = max(BATCH_FRAMES // len(features[order[0]]), 1)
            chosen, order = order[:rows], order[rows:]
            inputs, lengths = padded([features[place] for place in chosen])
            with torch.inference_mode():
                logits = network(inputs.to(device), lengths.to(device))
            best = logits.argmax(-1).cpu().numpy()
            for place, path, count in zip(chosen, best, outputs_of(lengths).tolist(), strict=True):
                text = collapse(path[:count], network.config.characters)
                texts[place] = " ".join(text.split())
        return texts

    def save(self, folder: Path) -> None:
        """Write a model directory into an existing folder; ``config.json`` comes last."""
        weights = {name: one.detach().cpu() for name, one in self.network.state_dict().items()}
        save_tensors(folder / WEIGHTS, weights)
        files.write_text(folder / CARD, _readme(self.network, self.origin))
        described = {
            "judge": 1,
            "network": configs.to_dict(self.network.config),
            "origin": configs.to_dict(self.origin),
        }
        files.write_json(folder / CONFIG, described)


def load(path: Path | str, *, device: str = "cpu") -> Judge:
    """Read a judge: its directory, or the folder of the run that made it.

    Raises:
        ConfigError: there is none.
        CheckpointError: it is damaged.
    """
    folder = model_dir.resolve(path)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{path} holds no judge; make one with: python -m eval.judge train")
    values = model_dir.read_config(folder)
    if values.get("judge") != 1:
        raise ConfigError(f"{folder} is a directory of something else than a judge")
    where = str(folder / CONFIG)
    settings = configs.from_dict(NetworkConfig, values.get("network"), where=where)
    origin = configs.from_dict(Origin, values.get("origin"), where=where)
    network = Network(settings, generator=torch.Generator())
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or damaged ({error})") from error
    return Judge(network.to(devices.resolve(device)), origin)


def _readme(network: Network, origin: Origin) -> str:
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    split = f", split {origin.split}" if origin.split else ""
    return (
        "# Judge of synthesized speech\n\n"
        f"A recognizer (CTC over characters, greedy, {size:.2f} M parameters) that says how well "
        "synthesized speech is understood. It is no product: it knows the kind of sentences it "
        "was trained on.\n\n"
        "- Made by `python -m unitone.eval.judge train`.\n"
        f"- Trained on {origin.utterances} utterances, {origin.seconds / 3600:.2f} h "
        f"(`{origin.manifest}`{split}). It has the licence that these recordings allow.\n"
        f"- Voices: {', '.join(origin.speakers) or 'not named'}. Don't let it judge these.\n"
        f"- Writes {network.config.characters!r}, as normalizer {origin.normalizer} leaves them.\n"
        "\n```python\n"
        "from unitone.eval import judge\n\n"
        "judge.load(path).transcribe([waveform])  # 16 kHz\n"
        "```\n"
    )
