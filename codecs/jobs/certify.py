"""The work of ``unitone.codecs.train --certify``."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from unitone.codecs.jobs.train import Prepared, prepare
from unitone.codecs.nn.crops import CropSource
from unitone.codecs.train import DecoderTrainConfig
from unitone.train.certify import certificate
from unitone.train.certify.setup import SetUp, small

CROPS = 2
"""Of a batch, at the most."""


@dataclass(frozen=True, kw_only=True)
class DecoderSetUp(SetUp):
    """A unit decoder's training."""

    decoder: DecoderTrainConfig
    """The user's configuration, with small batches."""

    @cached_property
    def prepared(self) -> Prepared:
        """The data, read once a process."""
        return prepare(self.decoder)

    def networks(self) -> Mapping[str, nn.Module]:
        """Return the networks as ``codecs.train`` does."""
        return self.prepared.networks()[1]

    def source(self, seed: int) -> CropSource:
        """Return the crops."""
        return replace(self.prepared.source, seed=seed)


def set_up(config: DecoderTrainConfig, folder: Path) -> DecoderSetUp:
    """Return what is certified; runs are written to ``folder``."""
    decoder = replace(config, batch_crops=min(config.batch_crops, CROPS))
    return DecoderSetUp(config=small(config.train.resolved()), folder=folder, decoder=decoder)


def certify(config: DecoderTrainConfig) -> None:
    """Check the set-up and print the certificate.

    Raises:
        UnitoneError: something doesn't hold.
    """
    with tempfile.TemporaryDirectory(prefix="unitone-certify-") as folder:
        setup = set_up(config, Path(folder))
        utterances = len(setup.prepared.source.material.utterances)
        title = f"unit decoder, {config.head} head: {certificate.size(setup)}"
        certificate.require(setup, title=f"{title}; {utterances} utterances")
