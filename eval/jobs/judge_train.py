"""The work of ``eval.judge train``."""

import logging
from dataclasses import dataclass, replace

from unitone import config as configs
from unitone import seeding
from unitone.eval.judge.data import (
    Recordings,
    RecordingSource,
    drop_too_short,
    read_recordings,
)
from unitone.eval.judge.judge import Judge, Origin
from unitone.eval.judge.model import CtcObjective, Network, NetworkConfig
from unitone.eval.judge_train import JudgeTrainConfig
from unitone.train.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is trained, and on what."""

    settings: NetworkConfig
    source: RecordingSource

    def network(self) -> Network:
        """Return a new one; its weights are those of the seed."""
        generator = seeding.torch_generator(self.source.seed, "judge", "weights")
        return Network(self.settings, generator=generator)


def prepare(config: JudgeTrainConfig, *, most: int | None = None) -> Prepared:
    """Read what ``config`` trains on, the first ``most`` utterances of it.

    Raises:
        ConfigError, CorpusError: nothing in it can be used.
    """
    recordings = read_recordings(
        config.manifest,
        split=config.split,
        num_mels=config.num_mels,
        name=config.normalizer,
        most=most,
    )
    settings = NetworkConfig(
        characters="".join(sorted(set("".join(recordings.texts)))),
        num_mels=config.num_mels,
        dim=config.dim,
        blocks=config.blocks,
        kernel=config.kernel,
        dropout=config.dropout,
    )
    recordings, targets = drop_too_short(
        recordings, [settings.encode(text) for text in recordings.texts]
    )
    source = RecordingSource(
        recordings=recordings,
        targets=targets,
        max_frames=config.batch_frames,
        seed=config.train.seed,
        augment=config.augment,
    )
    return Prepared(settings=settings, source=source)


def train(config: JudgeTrainConfig) -> None:
    """Train, or go on training, as ``config`` says."""
    config = replace(config, train=config.train.resolved())
    prepared = prepare(config)
    settings, source, recordings = prepared.settings, prepared.source, prepared.source.recordings
    network = prepared.network()
    judge = Judge(network, _origin(config, recordings))
    logger.info(
        "%d utterances, %.2f h, %d speakers; %.2f M parameters",
        len(recordings.texts),
        recordings.seconds / 3600,
        len(recordings.speakers),
        sum(parameter.numel() for parameter in network.parameters()) / 1e6,
    )
    augment = configs.to_dict(config.augment)
    Trainer(
        config.train,
        networks={"judge": CtcObjective(network)},
        source=source,
        out=config.out,
        save_model=judge.save,
        settings={
            "manifest": recordings.sha256,
            "split": config.split,
            "normalizer": config.normalizer,
            "network": configs.to_dict(settings),
            "augment": {"formants": augment.pop("vtlp"), **augment},  # its name before
            "batch_frames": config.batch_frames,
            "train": configs.to_dict(config.train),
        },
    ).run()


def _origin(config: JudgeTrainConfig, recordings: Recordings) -> Origin:
    return Origin(
        normalizer=config.normalizer,
        speakers=recordings.speakers,
        utterances=len(recordings.texts),
        seconds=recordings.seconds,
        manifest=config.manifest.name,
        split=config.split,
    )
