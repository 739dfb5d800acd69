"""The work of ``unitone.codecs.train``: what is trained on what."""

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from unitone import config as configs
from unitone import files, seeding
from unitone.codecs.nn.crops import CropSource, Material, read_material, speaker_of
from unitone.codecs.nn.discriminators import Discriminators
from unitone.codecs.nn.losses import (
    AdversarialDiscriminator,
    AdversarialGenerator,
    GeneratorOutput,
    MelRegression,
)
from unitone.codecs.nn.network import NetworkConfig, UnitNetwork
from unitone.codecs.train import DecoderTrainConfig
from unitone.codecs.unit_decoder import Card, save
from unitone.corpus import speaker_embeddings
from unitone.errors import ConfigError
from unitone.tokenizers.passport import require_same
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer
from unitone.train.loading import to_device
from unitone.train.trainer import Trainer

logger = logging.getLogger(__name__)

VALIDATION_BATCHES = 8
GRIFFIN_LIM_HOP = 160
"""Samples between spectral frames at the most, for Griffin-Lim: 10 ms."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is trained, and on what."""

    config: DecoderTrainConfig
    shards: TokenShards
    source: CropSource

    def networks(self) -> tuple[UnitNetwork, dict[str, nn.Module]]:
        """Return a new decoder, and what is trained of it, in the order of their steps."""
        seed = self.config.train.seed
        network = UnitNetwork(self.source.network, generator=_generator(seed, "decoder"))
        return network, _networks(self.config, network)


def prepare(config: DecoderTrainConfig) -> Prepared:
    """Read what ``config`` trains on.

    Raises:
        ConfigError, CorpusError, CheckpointError: it can't be trained.
    """
    config = replace(config, train=config.train.resolved())
    shards = TokenShards(config.tokens)
    material = read_material(shards, config.manifest, split=config.split)
    embeddings = _embeddings(config.speaker_embeddings, material)
    source = CropSource(
        material=material,
        network=network_config(config, shards, material, embeddings),
        seed=config.train.seed,
        crop_frames=config.crop_frames,
        batch_crops=config.batch_crops,
        embeddings=embeddings,
    )
    return Prepared(config=config, shards=shards, source=source)


def train(config: DecoderTrainConfig) -> None:
    """Train, or go on training, as ``config`` says."""
    prepared = prepare(config)
    config, shards, source = prepared.config, prepared.shards, prepared.source
    material, settings = source.material, source.network
    tokenizer = None if config.tokenizer is None else Tokenizer.load(config.tokenizer)
    if tokenizer is not None:
        require_same(tokenizer.passport, shards.passport, what=str(config.tokens))
    network, networks = prepared.networks()
    seconds = float(material.num_samples.sum()) / settings.sample_rate
    logger.info(
        "%d utterances, %.2f h, %d speakers; %s head, %.2f M parameters",
        len(material.utterances),
        seconds / 3600,
        len(settings.speakers),
        settings.head,
        sum(parameter.numel() for parameter in network.parameters()) / 1e6,
    )
    card = Card(
        utterances=len(material.utterances),
        seconds=seconds,
        manifest=config.manifest.name,
        split=config.split,
    )

    def save_model(folder: Path) -> None:
        save(folder, network, passport=shards.passport, tokenizer=tokenizer, card=card)

    validation = _validation(config, shards, source, networks)
    training = replace(config.train, best=config.train.best if validation else None)
    Trainer(
        training,
        networks=networks,
        source=source,
        out=config.out,
        validate=validation,
        save_model=save_model,
        settings={
            "passport": shards.passport.hash,
            "manifest": shards.index["manifest_sha256"],
            "split": config.split,
            "network": configs.to_dict(settings),
            "losses": configs.to_dict(config.losses),
            **{name: getattr(config, name) for name in ("crop_frames", "batch_crops")},
            **_voices(config.speaker_embeddings),
            "train": configs.to_dict(training),
        },
    ).run()
    logger.info("next: python -m unitone.codecs.synthesize %s", shlex.join(_next(config)))


def _voices(path: Path | None) -> dict[str, str | None]:
    return {"speaker_embeddings": None if path is None else files.sha256(path)}


def _next(config: DecoderTrainConfig) -> list[str]:
    """Return the options that make sound of the shards."""
    given = {"--model": config.out, "--tokens": config.tokens, "--out": config.out / "sound"}
    return [str(word) for pair in given.items() for word in pair]


def network_config(
    config: DecoderTrainConfig,
    shards: TokenShards,
    material: Material,
    embeddings: Mapping[str, Float32[np.ndarray, "E"]] | None,
) -> NetworkConfig:
    """Return the network that fits the shards: their units, frame rate and speakers."""
    frames = shards.passport.frames
    hop = round(frames.sample_rate / frames.frame_rate)
    per_unit = 1
    if config.head == "mel":
        while hop % per_unit or hop // per_unit > GRIFFIN_LIM_HOP:
            per_unit += 1
    return NetworkConfig(
        num_units=shards.passport.kmeans.k,
        frame_rate=frames.frame_rate,
        sample_rate=frames.sample_rate,
        speakers=material.speakers,
        speaker_dim=None if embeddings is None else len(next(iter(embeddings.values()))),
        head=config.head,
        frames_per_unit=per_unit,
        fft=4 * hop // per_unit,
        backbone=config.backbone,
    )


def _networks(config: DecoderTrainConfig, network: UnitNetwork) -> dict[str, nn.Module]:
    if config.head == "mel":
        return {"decoder": MelRegression(network, config.losses)}
    discriminators = Discriminators(
        width=config.discriminator_width, generator=_generator(config.train.seed, "discriminators")
    )
    output = GeneratorOutput(network)
    return {
        "discriminator": AdversarialDiscriminator(output, discriminators),
        "decoder": AdversarialGenerator(output, discriminators, config.losses),
    }


class _Validation:
    """The decoder's losses on fixed crops of another split."""

    def __init__(self, source: CropSource, objective: nn.Module) -> None:
        self._source = source
        self._specs = source.plan(0)[:VALIDATION_BATCHES]
        self._objective = objective

    def __call__(self, step: int) -> dict[str, float]:
        device = next(self._objective.parameters()).device
        sums: dict[str, tuple[float, float]] = {}
        for spec in self._specs:
            loss = self._objective(to_device(self._source.load(spec), device))
            for name, (value, count) in loss.parts.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + float(value), before[1] + float(count))
        return {name: value / max(count, 1.0) for name, (value, count) in sums.items()}


def _validation(
    config: DecoderTrainConfig,
    shards: TokenShards,
    source: CropSource,
    networks: Mapping[str, nn.Module],
) -> _Validation | None:
    if config.valid_split is None:
        return None
    material = read_material(shards, config.manifest, split=config.valid_split)
    unknown = sorted(set(material.speakers) - set(source.material.speakers))
    if unknown and source.embeddings is None:
        raise ConfigError(
            f"--valid-split {config.valid_split}: speaker {unknown[0]!r} is not in the "
            "training data; give --speaker-embeddings, or a split of the same speakers"
        )
    if source.embeddings is not None:
        _check_covered(source.embeddings, material)
    held_out = CropSource(
        material=material,
        network=source.network,
        seed=config.train.seed + 1,
        crop_frames=source.crop_frames,
        batch_crops=source.batch_crops,
        embeddings=source.embeddings,
    )
    return _Validation(held_out, networks["decoder"])


def _embeddings(
    path: Path | None, material: Material
) -> dict[str, Float32[np.ndarray, "E"]] | None:
    if path is None:
        return None
    found = speaker_embeddings.read(path, option="--speaker-embeddings")
    _check_covered(found, material)
    return found


def _check_covered(embeddings: Mapping[str, Float32[np.ndarray, "E"]], material: Material) -> None:
    for one in material.utterances:
        speaker_embeddings.name_of(
            embeddings, id=one.id, speaker=speaker_of(one), option="--speaker-embeddings"
        )


def _generator(seed: int, name: str) -> torch.Generator:
    draw = seeding.stream(seed, "weights", name)
    return torch.Generator().manual_seed(int(draw.integers(2**62)))
