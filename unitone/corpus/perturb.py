"""Speed perturbation: ``python -m tokenizers.perturb --manifest M --split train --out OUT``.

Copies of recordings at other speeds, tempo and pitch together (Ko et al. 2015, "Audio augmentation
for speech recognition"), beside the recordings themselves: OUT/manifest.jsonl names both, so that
everything after it sees one larger corpus. A copy's id is ``sp0.9-<id>`` and its speaker
``sp0.9-<speaker>``, since at another pitch it is another voice. Other splits are passed on as they
are. Copies that are there already are kept, as long as the recordings they were made of, which
OUT/copies.jsonl names, are the same.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitone import files, program
from unitone.config import command_line
from unitone.corpus import audio
from unitone.corpus.audio import SAMPLE_RATE
from unitone.corpus.corpus import read_corpus
from unitone.corpus.utterance import Utterance, file_name
from unitone.errors import ConfigError, CorpusError
from unitone.logs import Progress
from unitone.resume import Journal

logger = logging.getLogger(__name__)

MADE = "copies.jsonl"
"""What each copy was made of."""


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    manifest: Path
    """Corpus to enlarge."""
    out: Path
    """Folder for the copies and the new manifest."""
    split: str = "train"
    """The split that is enlarged."""
    speeds: tuple[float, ...] = (0.9, 1.1)
    """Factors of the copies."""
    workers: int = 2
    """Threads."""

    def __post_init__(self) -> None:
        for speed in self.speeds:
            if not 0.5 <= speed <= 2 or speed == 1:
                raise ConfigError(f"--speeds must be 0.5 to 2 and not 1, got {speed:g}")


def perturb(config: PerturbConfig) -> Path:
    """Write the copies that are missing, then the manifest; return its path."""
    corpus = read_corpus(config.manifest)
    chosen = [one for one in corpus.utterances if one.split == config.split]
    if not chosen:
        raise ConfigError(f"--split {config.split}: no utterance of {config.manifest} has it")
    if any(one.audio is None for one in corpus.utterances):
        raise ConfigError(f"{config.manifest}: its cuts aren't plain files; export them first")
    with files.locked(config.out):
        files.require_own(config.out, MADE)
        (config.out / MADE).touch()  # before any copy: a killed run must know its folder
        journal = Journal(config.out / MADE)
        made = {record["copy"]: record["of"] for record in journal.records()}
        jobs = [(one, speed) for one in chosen for speed in config.speeds]
        with (
            Progress("perturb", total=float(len(jobs)), unit="recording") as bar,
            ThreadPoolExecutor(config.workers) as pool,
        ):
            for copy, source in pool.map(lambda job: _copy(*job, out=config.out, made=made), jobs):
                if made.get(copy) != source:
                    journal.append({"copy": copy, "of": source})
                bar.advance(1.0)
        journal.close()
        path = config.out / "manifest.jsonl"
        lines = [*map(_entry, corpus.utterances), *(_faster(*job, out=config.out) for job in jobs)]
        files.write_json_lines(path, lines)
    logger.info("%d utterances, %d of them copies, in %s", len(lines), len(jobs), path)
    return path


def _copy(
    utterance: Utterance, speed: float, *, out: Path, made: Mapping[str, list[Any]]
) -> tuple[str, list[Any]]:
    """Write a copy, unless it was ``made`` of the same; return its name and what it is made of."""
    path, source = _path(utterance, speed, out=out), _source(utterance, speed)
    if path.is_file() and made.get(path.name) == source:
        return path.name, source
    import soxr

    samples = audio.read(utterance.clip)
    changed = soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE)
    audio.write(path, np.clip(changed, -1, 1), SAMPLE_RATE, form="FLAC")
    return path.name, source


def _source(utterance: Utterance, speed: float) -> list[Any]:
    """Return what decides a copy: the recording, by its size and time of writing, and the part."""
    clip = utterance.clip
    try:
        found = clip.path.stat()
    except OSError as error:
        raise CorpusError(f"{clip.path}: not readable ({error})") from error
    known = (str(clip.path.resolve()), found.st_size, found.st_mtime_ns)
    return [*known, clip.start, clip.duration, clip.channel, speed]


def _path(utterance: Utterance, speed: float, *, out: Path) -> Path:
    return out / "audio" / file_name(f"sp{speed:g}-{utterance.id}", ".flac")


def _entry(utterance: Utterance) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": utterance.id,
        "audio": str(utterance.clip.path.resolve()),
        "start": utterance.start if utterance.start or utterance.duration else None,
        "duration": utterance.duration or utterance.stated_duration,
        "text": utterance.text,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "language": utterance.language,
        "split": utterance.split,
        "channel": utterance.channel,
        "translation": dict(utterance.translation) or None,
        "phones": [list(label) for label in utterance.labels] or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _faster(utterance: Utterance, speed: float, *, out: Path) -> dict[str, Any]:
    entry = _entry(utterance)
    for name in ("start", "channel"):  # the copy is what they choose
        entry.pop(name, None)
    if "duration" in entry:
        entry["duration"] = entry["duration"] / speed
    if "phones" in entry:
        entry["phones"] = [[one, start / speed, end / speed] for one, start, end in entry["phones"]]
    entry["id"] = f"sp{speed:g}-{utterance.id}"
    if utterance.speaker is not None:
        entry["speaker"] = f"sp{speed:g}-{utterance.speaker}"
    return entry | {"audio": str(_path(utterance, speed, out=out).relative_to(out))}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(PerturbConfig, argv, __doc__)

    def run() -> None:
        perturb(config)

    return program.run(run)


if __name__ == "__main__":
    raise SystemExit(main())
