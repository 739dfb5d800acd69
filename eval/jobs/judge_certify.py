"""The work of ``eval.judge train --certify``."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from unitone.eval.jobs.judge_train import Prepared, prepare
from unitone.eval.judge.data import RecordingSource
from unitone.eval.judge.model import CtcObjective
from unitone.eval.judge_train import JudgeTrainConfig
from unitone.train.certify import certificate
from unitone.train.certify.setup import SetUp, small

UTTERANCES = 64
"""Of the user's, the first so many."""


@dataclass(frozen=True, kw_only=True)
class JudgeSetUp(SetUp):
    """An ASR judge's training."""

    judge: JudgeTrainConfig

    @cached_property
    def prepared(self) -> Prepared:
        """The data, read once a process."""
        return prepare(self.judge, most=UTTERANCES)

    def networks(self) -> Mapping[str, nn.Module]:
        """Return the network as ``eval.judge train`` does."""
        return {"judge": CtcObjective(self.prepared.network())}

    def source(self, seed: int) -> RecordingSource:
        """Return the recordings."""
        return replace(self.prepared.source, seed=seed)


def set_up(config: JudgeTrainConfig, folder: Path) -> JudgeSetUp:
    """Return what is certified; runs are written to ``folder``."""
    return JudgeSetUp(config=small(config.train.resolved()), folder=folder, judge=config)


def certify(config: JudgeTrainConfig) -> None:
    """Check the set-up and print the certificate.

    Raises:
        UnitoneError: something doesn't hold.
    """
    with tempfile.TemporaryDirectory(prefix="unitone-certify-") as folder:
        setup = set_up(config, Path(folder))
        utterances = len(setup.prepared.source.recordings.texts)
        title = f"ASR judge: {certificate.size(setup)}; {utterances} utterances"
        certificate.require(setup, title=title)
