"""Golden cases of ``codecs/`` and ``eval/``: the unit decoder's sound and training, the judge."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch

from tests.golden import subject
from tests.golden.case import Case, Tensors, generator, named, part, shaken, waveforms

UNITS, FRAMES = 6, 10


def network_of(head: Literal["mel", "istft"]) -> subject.UnitNetwork:
    """Return a tiny unit decoder; without dropout, which draws from torch's own stream."""
    backbone = subject.BackboneConfig(dim=8, num_blocks=2, duration_dim=8, duration_dropout=0.0)
    config = subject.UnitNetworkConfig(
        num_units=UNITS,
        frame_rate=100.0,
        speakers=("ann", "bob"),
        head=head,
        griffin_lim=4,
        backbone=backbone,
    )
    return subject.UnitNetwork(config, generator=generator(1))


def draw_network(head: Literal["mel", "istft"]) -> Tensors:
    """Weights, and what two utterances are made of."""
    units = torch.randint(UNITS, (2, FRAMES), generator=generator(3))
    valid = torch.arange(FRAMES) < torch.tensor([FRAMES, FRAMES - 4])[:, None]
    return named("weights.", shaken(dict(network_of(head).state_dict()), 2)) | {
        "units": units * valid,
        "valid": valid,
        "speakers": torch.tensor([0, 1]),
    }


def run_network(head: Literal["mel", "istft"], given: Tensors, folder: Path) -> Tensors:
    """Sound and durations."""
    network = network_of(head)
    network.load_state_dict(part(given, "weights."))
    network.eval()
    what = given["units"], given["speakers"], given["valid"]
    with torch.no_grad():
        found = {
            "waveforms": network.waves(*what, generator=generator(5)),
            "durations": network.durations(*what),
        }
        if head == "mel":
            found["log_magnitudes"] = network.log_magnitudes(*what)[:, :, ::4]
    return found


def draw_crops() -> Tensors:
    """Four crops of speech."""
    network = network_of("mel")
    framing, hop = network.framing, network.config.hop
    samples = framing.left + FRAMES * hop + framing.right
    waves, _ = waveforms(0.4)
    given = draw_network("mel")
    for number in range(4):
        given[f"crop.waves.{number}"] = waves[0, 900 * number :][:samples]
        units = torch.randint(UNITS, (FRAMES + 5,), generator=generator(number))
        given[f"crop.units.{number}"], given[f"crop.runs.{number}"] = units[:-5], units[-5:]
        given[f"crop.durations.{number}"] = torch.tensor([2, 3, 1, 4, 2 * (number % 2)])
    return given


def run_training(given: Tensors, folder: Path) -> Tensors:
    """Sound, and losses of five steps on two crops each."""
    network = network_of("mel")
    network.load_state_dict(part(given, "weights."))

    def rows(name: str, first: int) -> torch.Tensor:
        return torch.stack([given[f"crop.{name}.{number}"] for number in (first, first + 1)])

    batches = [
        subject.CropBatch(
            units=rows("units", first),
            valid=given["valid"],
            speakers=given["speakers"],
            timed_speakers=1 - given["speakers"],
            waves=rows("waves", first).float() / 32768,
            runs=rows("runs", first),
            durations=rows("durations", first),
        )
        for first in (0, 2)
    ]
    losses = subject.losses_of_five_steps(subject.mel_regression(network), batches, folder)
    return run_network("mel", given, folder) | {"training": losses}


def judge_of() -> subject.JudgeNetwork:
    """Return a tiny judge."""
    config = subject.JudgeConfig(characters="abc de", num_mels=20, dim=12, blocks=2, kernel=3)
    return subject.JudgeNetwork(config, generator=generator(1))


def draw_judge() -> Tensors:
    waves, lengths = waveforms(0.2, 0.12)
    weights = shaken(dict(judge_of().state_dict()), 2)
    return named("weights.", weights) | {"waveforms": waves, "lengths": lengths}


def run_judge(given: Tensors, folder: Path) -> Tensors:
    """Features and log-probabilities of the characters, of frames that are no padding."""
    network = judge_of()
    network.load_state_dict(part(given, "weights."))
    waves = given["waveforms"].float() / 32768
    rows = [wave[:length] for wave, length in zip(waves, given["lengths"].tolist(), strict=True)]
    features, lengths = subject.judge_features(rows, network.config.num_mels)
    with torch.no_grad():
        log_p = network.eval()(features, lengths).log_softmax(-1)
    outputs = subject.outputs_of(lengths).tolist()
    valid = torch.cat([row[:count] for row, count in zip(log_p, outputs, strict=True)])
    return {"features": features, "lengths": lengths, "log_p": valid}


CASES = {
    "unit-decoder-mel": Case(draw=draw_crops, run=run_training),
    "unit-decoder-istft": Case(
        draw=partial(draw_network, "istft"), run=partial(run_network, "istft")
    ),
    "judge": Case(draw=draw_judge, run=run_judge),
}
