"""Utterance records to Lhotse cuts, the native form: ``python -m unitone.corpus.cuts``.

``--manifest M --out cuts.jsonl.gz`` turns any manifest this toolkit reads into a CutSet, having
read the header of every recording; what can't be used is listed in ``OUT.skipped.jsonl`` beside it.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitone import files, program
from unitone.config import command_line
from unitone.corpus import audio
from unitone.corpus.lines import first_object
from unitone.corpus.reading import ReadingConfig
from unitone.corpus.stored_cuts import StoredCut
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import ConfigError, CorpusError
from unitone.logs import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CutsConfig:
    out: Path
    """The CutSet, ``….jsonl.gz`` or ``….jsonl``."""
    reading: ReadingConfig


def write_cuts(config: CutsConfig) -> None:
    """Write the CutSet, whole or not at all."""
    from lhotse import CutSet

    if not config.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"--out {config.out}: name it ….jsonl.gz or ….jsonl")
    _require_ours(config.out, config.reading.manifest)
    corpus = config.reading.corpus()
    skipped: list[Skipped] = [*corpus.skipped]

    def cuts() -> Iterator[Any]:
        with Progress("cuts", total=float(len(corpus.utterances)), unit=" utterances") as bar:
            for utterance in corpus.utterances:
                bar.advance(1.0)
                try:
                    yield cut_of(utterance)
                except CorpusError as error:
                    if config.reading.strict:
                        raise CorpusError(f"--strict: {utterance.id}: {error}") from error
                    reason = str(error)
                    skipped.append(Skipped(id=utterance.id, line=utterance.line, reason=reason))

    # the temporary name needs the suffix, by which Lhotse chooses the compression
    unfinished = config.out.with_name(f".unfinished-{config.out.name}")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with CutSet.open_writer(unfinished, overwrite=True) as writer:
            for cut in cuts():
                writer.write(cut)
                count += 1
        if count == 0:
            raise CorpusError(f"{corpus.path}: no usable recording: {skipped[0].reason}")
        unfinished.replace(config.out)
    finally:
        unfinished.unlink(missing_ok=True)
    reasons = config.out.with_name(f"{config.out.name}.skipped.jsonl")
    files.write_json_lines(reasons, (item.to_json() for item in skipped))
    logger.info("%d cuts in %s, %d entries skipped", count, config.out, len(skipped))


def _require_ours(out: Path, manifest: Path) -> None:
    """Refuse to write over what is no CutSet, or over the very manifest."""
    if not out.exists():
        return
    kind = None
    with contextlib.suppress(ConfigError, CorpusError):  # another kind of file
        kind = first_object(out).get("type") if out.is_file() else None
    if out.resolve() == manifest.resolve() or not str(kind).endswith("Cut"):
        raise ConfigError(f"--out {out} is there, and no CutSet made of --manifest; choose another")


def cut_of(utterance: Utterance) -> Any:
    """Return the Lhotse cut of an utterance; only the header of its recording is read.

    Raises:
        CorpusError: the recording is missing, isn't audio, or is no file of its own.
    """
    from lhotse import MonoCut, SupervisionSegment

    if isinstance(utterance.cut, StoredCut):
        raise CorpusError("its audio lies in a Shar archive, which a CutSet can't hold")
    if utterance.cut is not None:
        return utterance.cut
    recording = _recording(utterance)
    start, duration = _stretch(utterance, recording)
    cut = recording.to_cut()
    if utterance.channel is not None:
        if utterance.channel >= recording.num_channels:
            raise CorpusError(
                f"{utterance.audio}: channel {utterance.channel} asked for, the file has "
                f"{recording.num_channels}"
            )
        cut = MonoCut(
            id=utterance.id, start=0, duration=cut.duration, channel=utterance.channel,
            recording=recording,
        )  # fmt: skip
    if utterance.start or utterance.duration is not None:
        cut = cut.truncate(offset=start, duration=duration)
    cut.id = utterance.id
    custom: dict[str, Any] = {}
    if utterance.translation:
        custom["translation"] = dict(utterance.translation)
    if utterance.split:
        custom["split"] = utterance.split
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=recording.id,
        start=0.0,
        duration=cut.duration,
        channel=cut.channel,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        gender=utterance.gender,
        custom=custom or None,
        alignment=_alignment(utterance),
    )
    cut.supervisions = [supervision]
    return cut


def _stretch(utterance: Utterance, recording: Any) -> tuple[float, float | None]:
    """Return start and duration within the recording; None = to its end."""
    start, duration, length = utterance.start, utterance.duration, recording.duration
    if start >= length:
        raise CorpusError(
            f"{utterance.audio}: start {start:g} s lies after the end ({length:.3f} s)"
        )
    if duration is None:
        return start, None
    if duration <= 0:
        raise CorpusError(f"{utterance.audio}: a segment of {duration:g} s")
    over = start + duration - length
    if over > audio.SLACK:
        raise CorpusError(f"{utterance.audio}: the clip ends {over:.2f} s after the end")
    return start, min(duration, length - start)


def _alignment(utterance: Utterance) -> dict[str, list[Any]] | None:
    from lhotse.supervision import AlignmentItem

    if not utterance.labels:
        return None
    items = [
        AlignmentItem(  # counted from the recording, as Lhotse does
            symbol=symbol,
            start=round(start + utterance.start, 6),
            duration=round(end - start, 6),
        )
        for symbol, start, end in utterance.labels
    ]
    return {"phone": items}


def _recording(utterance: Utterance) -> Any:
    import soundfile
    from lhotse import Recording
    from lhotse.audio import AudioSource

    path = utterance.clip.path
    try:
        if not path.is_file():
            raise CorpusError(f"{path}: no such file")
        info = soundfile.info(path)
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        raise CorpusError(f"{path}: not readable as audio ({error})") from error
    if info.frames == 0:
        raise CorpusError(f"{path}: holds no samples")
    channels = list(range(info.channels))
    return Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=channels, source=str(path.resolve()))],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
        channel_ids=channels,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(CutsConfig, argv, __doc__)
    return program.run(lambda: write_cuts(config))


if __name__ == "__main__":
    raise SystemExit(main())
