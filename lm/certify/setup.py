"""The set-up that a configuration of ``lm.train`` makes, with few and short examples.

What a family needs for it is what the trainer needs: ``prepare``, a network, batches, a loss.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unitone.config import to_dict
from unitone.errors import ConfigError
from unitone.lm import families
from unitone.lm.certify import corpus
from unitone.lm.data.mixture import Item, Mixture, examples, total
from unitone.lm.jobs.training import Training
from unitone.lm.options import LmConfig
from unitone.lm.tasks import Task
from unitone.train.certify.setup import SetUp, silent, small
from unitone.train.distributed import World

POSITIONS = (512, 1024, 2048, 4096, 8192)
"""Of a batch: the first budget that an example of every task fits into."""
WINDOW = 64
"""Examples of an epoch window, so that a run sees more than one."""
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
NETWORK = "model"
"""What ``lm.train`` calls its trainable module."""


@dataclass(frozen=True, kw_only=True)
class LmSetUp(SetUp):
    """A language model's training."""

    lm: LmConfig[Any]
    """The user's configuration, on few utterances."""

    def prepared(self) -> Training:
        """Return the family's parts, new ones at every call."""
        name = families.of_size(self.lm.config)
        with silent():
            made: Training = families.module(name, "training").prepare(self.lm, ALONE)
        return made

    @cached_property
    def made(self) -> Training:
        """The parts, of which the data is used and the network is not trained."""
        return self.prepared()

    @property
    def tasks(self) -> list[Task]:
        """What is trained, in the order of the tasks' numbers."""
        return [row.task for row in self.made.table]

    def networks(self) -> Mapping[str, nn.Module]:
        """Return the trainable module, as ``lm.train`` does."""
        return {NETWORK: self.prepared().objective}

    def source(self, seed: int) -> Mixture:
        """Return the mixture of tasks."""
        return Mixture(
            self.lm.mixture,
            store=self.made.train,
            tasks=self.tasks,
            batching=self.made.batching,
            seed=seed,
        )

    @cached_property
    def items(self) -> dict[int, list[Item]]:
        """Examples of every task, the shortest first, and how many positions they have."""
        found = {}
        for number, task in enumerate(self.tasks):
            rows, to, costs = examples(self.made.train, self.made.batching, number, name=task.name)
            order = np.argsort(total(costs), kind="stable")
            order = order[total(costs)[order] <= self.made.batching.longest]
            found[number] = [
                Item(task=number, row=int(rows[i]), to=int(to[i]), draw=int(i)) for i in order
            ]
        return found

    @property
    def assorted(self) -> list[Item]:
        """The shortest, the middle and the longest example of every task."""
        picked = [{one[0], one[len(one) // 2], one[-1]} for one in self.items.values() if len(one)]
        return sorted(itertools.chain(*picked), key=lambda one: (one.draw, one.task))


def set_up(config: LmConfig[Any], folder: Path, *, given: bool) -> LmSetUp:
    """Return what is certified; ``given``: on the user's shards, else on shards made here.

    Raises:
        ConfigError, CorpusError, CheckpointError: as training would.
    """
    if given:
        config = replace(config, tokens=corpus.sample(config, folder), split_by=None)
        return _fitting(config, folder)
    made = corpus.synthetic(folder)
    config = replace(config, tokens=made, split=("train",), valid_split=("dev",), split_by=None)
    first: ConfigError | None = None
    for brought in _brought(folder):  # what no manifest has comes by options: as few as will do
        try:
            return _fitting(replace(config, **brought), folder)
        except ConfigError as error:
            first = first or error
    assert first is not None
    raise first


def _brought(folder: Path) -> Sequence[dict[str, Any]]:
    features = {"features": folder / "features"}
    embeddings = {"speaker_embeddings": folder / "embeddings.safetensors"}
    return ({}, features, embeddings, features | embeddings)


def _fitting(config: LmConfig[Any], folder: Path) -> LmSetUp:
    """Return the set-up with the smallest budget of a batch that every task has examples for."""
    mixture, train = config.mixture, small(config.train)
    for positions in POSITIONS:
        most = min(positions, mixture.max_tokens)
        window = min(WINDOW, mixture.window_examples)
        short = replace(mixture, max_tokens=most, window_examples=window)
        own = replace(config, out=folder / "prepared", mixture=short, train=train)
        made = LmSetUp(config=train, folder=folder, lm=own)
        try:
            made.source(train.seed)
        except ConfigError:
            if most == min(POSITIONS[-1], mixture.max_tokens):
                raise
        else:
            return made
    raise AssertionError


def described(setup: LmSetUp) -> dict[str, Any]:
    """Return what was certified, as JSON values."""
    parameters = sum(parameter.numel() for parameter in setup.made.model.parameters())
    return {
        "config": setup.lm.config,
        "parameters": parameters,
        "tasks": [task.name for task in setup.tasks],
        "utterances": len(setup.made.train),
        "options": to_dict(setup.lm.options),
        "train": to_dict(setup.config),
    }
