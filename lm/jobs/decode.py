"""The work of ``lm.decode``: in which order, kept in a journal, written at the end."""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitone import files
from unitone.corpus.utterance import file_name
from unitone.errors import ConfigError, CorpusError
from unitone.lm import family
from unitone.lm.data.fields import unlearnt_message
from unitone.lm.data.sources import Source
from unitone.lm.data.waveforms import SPOKEN, SpeechDecoder
from unitone.lm.decode import DecodeConfig
from unitone.lm.family import LoadedModel
from unitone.lm.predictor import Predictor, Request, require_times
from unitone.lm.tasks import Task
from unitone.logs import Progress
from unitone.model_dir import WEIGHTS
from unitone.resume import Journal, require_unchanged

logger = logging.getLogger(__name__)

WINDOW = 512
"""Utterances that are sorted by length together: batches are of one window."""


def decode(config: DecodeConfig[Any]) -> None:
    """Write the hypotheses; do only what is missing."""
    if config.out.suffix != ".jsonl":
        raise ConfigError(f"--out {config.out}: the hypotheses are JSON lines, call them *.jsonl")
    if config.prefix < 0 or config.batch_tokens < 1:
        raise ConfigError("--prefix must be 0 or more, --batch-tokens 1 or more")
    loaded = family.load(config.model, device=config.device, precision=config.precision)
    predictor = _predictor(config, loaded)
    task = predictor.task
    edits = _edits(config, task)
    if config.words:
        timer = require_times(predictor)
        if task.output != "text" or "text" in task.inputs:
            raise ConfigError(f"--words: task {task.name} writes no words of the speech; use asr")
        timer.timed([])  # refuses what can't be
    targets = _targets(config, loaded, task)
    speech_decoder = _speech_decoder(config, loaded, task)
    needs = {*task.inputs, *task.optional} - {"edited"} | (
        {task.output} if config.prefix else set()
    )
    _check_labels(config, needs, speech_decoder)
    source = Source(config.source, loaded, needs=frozenset(needs), decoder=config.decoder)
    settings = _settings(config, loaded, predictor, source, speech_decoder)
    if _is_done(config.out, settings):
        logger.info("%s was there already", config.out)
        return
    work = config.out.with_name(f".{config.out.name}.work")
    if not work.exists() and not config.out.exists():
        _require_free(config, source, targets)
    with files.locked(work):
        journal = Journal(work / "journal.jsonl")
        done = _journal_of(journal, settings, config.out)
        run = _Run(
            config=config,
            loaded=loaded,
            predictor=predictor,
            source=source,
            targets=targets,
            speech_decoder=speech_decoder,
            edits=edits,
        )
        started = time.perf_counter()
        try:
            run.windows(journal, done)
        finally:
            journal.close()
        _tell_of_faint(source)
        _finish(config.out, journal, settings, seconds=time.perf_counter() - started)
        journal.remove()
    work.rmdir()


def _predictor(config: DecodeConfig[Any], loaded: LoadedModel) -> Predictor[Any]:
    """Return what does the task, with the help of --draft where there is one."""
    predictor = loaded.predictor(config.task, config=config.decoding, seed=config.seed)
    if config.draft and config.correct:
        raise ConfigError("--draft and --correct don't go together; leave one of them out")
    if config.correct is not None:
        from unitone.lm.drafts.correct import open_corrected

        return open_corrected(config.correct, loaded, predictor, device=config.device)
    if config.draft is None:
        return predictor
    from unitone.lm.drafts.predictor import open_drafted

    return open_drafted(config.draft, loaded, predictor, device=config.device, seed=config.seed)


def _edits(config: DecodeConfig[Any], task: Task) -> dict[str, str]:
    """Return the edited texts by id."""
    if ("edited" in task.inputs) != (config.edits is not None):
        raise ConfigError("--edits goes with --task edit: JSON lines with id and text")
    if config.edits is None:
        return {}
    try:
        lines = config.edits.read_text(encoding="utf-8").splitlines()
        return {str(one["id"]): str(one["text"]) for one in map(json.loads, filter(None, lines))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--edits {config.edits}: expected JSON lines with id and text ({error!r})"
        ) from error


def _targets(config: DecodeConfig[Any], loaded: LoadedModel, task: Task) -> tuple[str | None, ...]:
    """Return the languages to go to, (None,) where the task has no choice."""
    chooses = "to" in task.inputs
    if chooses and not config.to:
        raise ConfigError(f"--task {config.task} translates: say into what, as in --to de")
    if config.to and not chooses:
        raise ConfigError(f"--to: task {config.task} has no choice of language")
    for language in config.to:
        loaded.vocabulary.id(f"<language:{language}>")
    return config.to or (None,)


def _check_labels(
    config: DecodeConfig[Any], needs: set[str], speech_decoder: SpeechDecoder | None
) -> None:
    """Refuse a --speaker or --language that nothing would come of, or that wasn't heard."""
    source = config.source
    if speech_decoder is not None and speech_decoder.speakers:
        speech_decoder.require(source.speaker)
    elif source.speaker is not None and not needs & {"speaker", "voice"}:
        raise ConfigError(f"--speaker: task {config.task} reads no {{speaker}}; leave it out")
    if source.language is not None and not (config.to or "language" in needs):
        raise ConfigError(f"--language: task {config.task} reads no {{language}}; leave it out")


def _speech_decoder(
    config: DecodeConfig[Any], loaded: LoadedModel, task: Task
) -> SpeechDecoder | None:
    """Return what makes the sound of ``--audio``."""
    if config.audio is None:
        return None
    if task.output not in SPOKEN:
        raise ConfigError(f"--audio: task {task.name} generates {task.output}, not units or codes")
    return SpeechDecoder(loaded, decoder=config.decoder, speech=SPOKEN[task.output])


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What an earlier start has finished."""

    windows: set[int]
    """Whole ones."""
    places: set[tuple[int, ...]]
    """Utterances, with the number of the language each."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The work of one call."""

    config: DecodeConfig[Any]
    loaded: LoadedModel
    predictor: Predictor[Any]
    source: Source
    targets: tuple[str | None, ...]
    speech_decoder: SpeechDecoder | None
    edits: Mapping[str, str]
    """The edited text of utterances, by id."""
    said: set[str] = field(default_factory=set)
    """What was warned of; once is enough."""

    def windows(self, journal: Journal, done: _Done) -> None:
        """Decode what isn't ``done``."""
        total = float(len(self.source) * len(self.targets))
        with Progress("decode", total=total, unit="utterance") as bar:
            for window, first in enumerate(range(0, len(self.source), WINDOW)):
                last = min(first + WINDOW, len(self.source))
                if window not in done.windows:
                    self._window(window, range(first, last), journal, done)
                bar.advance(float((last - first) * len(self.targets)))

    def _window(self, window: int, numbers: range, journal: Journal, done: _Done) -> None:
        requests: list[Request] = []
        places: list[tuple[int, int]] = []
        speakers: list[str | None] = []
        skipped: list[dict[str, Any]] = []
        for number, row in zip(numbers, self.source.read(numbers), strict=True):
            for order, to in enumerate(self.targets):
                place = (number, order)
                try:
                    if isinstance(row, str):
                        raise CorpusError(row)
                    requests.append(self._request(row, to))
                except CorpusError as error:
                    skipped.append(
                        {
                            "place": place,
                            "id": self.source.id(number),
                            "to": to,
                            "reason": str(error),
                        }
                    )
                else:
                    places.append(place)
                    speakers.append(row.get("speaker"))
        batches = self.predictor.batches(requests, max_tokens=self.config.batch_tokens)
        for batch, planned in enumerate(batches):
            members = [one for one in planned if places[one] not in done.places]
            if not members:
                continue
            lines = self._batch(
                [requests[one] for one in members], [speakers[one] for one in members]
            )
            for line, one in zip(lines, members, strict=True):
                line["place"] = places[one]
            journal.append({"window": window, "batch": batch, "lines": lines})
        journal.append({"window": window, "batch": -1, "lines": [], "skipped": skipped})

    def _request(self, row: dict[str, Any], to: str | None) -> Request:
        if to is not None and to == row.get("language"):
            raise CorpusError(f"{row['id']}: is in {to} already")
        edited = self.edits.get(row["id"])
        record = self.loaded.fields.record(row | {"edited": edited} if edited else row)
        if to is not None:
            record["to"] = to
        request: Request = self.predictor.request(record, prefix=self.config.prefix)
        try:
            self._check(row)
        except (ConfigError, CorpusError) as error:
            raise CorpusError(f"{row['id']}: {error}") from error
        return request

    def _check(self, row: dict[str, Any]) -> None:
        """Refuse or warn of what training has not seen and the sound decoder not heard."""
        speaker, inputs = row.get("speaker"), self.predictor.task.inputs
        if "text" in inputs:
            for one in self.loaded.fields.unlearnt(row["text"]):
                self._warn("%s: %s", row["id"], unlearnt_message([one]), key=one)
        if "speaker" in inputs and speaker is not None:
            self.loaded.require("speaker", speaker)
        if self.speech_decoder is None:
            return
        self.speech_decoder.require(speaker)
        voices = self.speech_decoder.speakers
        if speaker is None and len(voices) > 1:
            self._warn("%s has no speaker: the voice is %s's", row["id"], voices[0], key="")

    def _warn(self, message: str, *values: object, key: str) -> None:
        if key not in self.said:
            self.said.add(key)
            logger.warning(message, *values)

    def _relative(self, path: Path) -> str:
        """Return a file's path as seen from the hypotheses, so that the two can move together."""
        folder = self.config.out.parent.resolve()
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()

    def _batch(self, requests: list[Request], speakers: list[str | None]) -> list[dict[str, Any]]:
        if self.config.words:
            found = require_times(self.predictor).timed(requests)
        else:
            found = self.predictor.predict(requests, max_tokens=self.config.batch_tokens)
        audio: list[Path | None] = [None] * len(requests)
        if self.speech_decoder is not None:
            assert self.config.audio is not None
            names = [_sound_name(one.id, one.to) for one in requests]
            audio = self.speech_decoder.write(
                found,
                speakers=speakers,
                files_at=[_audio_path(self.config.audio, name) for name in names],
            )
        return [
            {
                "id": request.id,
                "task": self.config.task,
                "to": request.to,
                "text": one.text,
                "label": one.label,
                "units": None if one.units is None else one.units.tolist(),
                "codes": None if one.codes is None else one.codes.tolist(),
                "audio": None if path is None else self._relative(path),
                "score": round(one.score, 6),
                "truncated": one.truncated,
                **({} if one.span is None else {"span": list(one.span)}),
                **({} if one.unrepaired is None else {"unrepaired": one.unrepaired}),
                **({} if one.words is None else {"words": [w.rounded() for w in one.words]}),
            }
            for request, one, path in zip(requests, found, audio, strict=True)
        ]


def _tell_of_faint(source: Source) -> None:
    """Warn of recordings that no words can be made out of, whatever the model has written."""
    for name, why in list(source.faint.items())[:1]:
        logger.warning(
            "%d recordings are too short or too quiet for words, %s for one (%s); "
            "what is made of them is not to be relied on",
            len(source.faint),
            name,
            why,
        )


def _require_free(
    config: DecodeConfig[Any], source: Source, targets: tuple[str | None, ...]
) -> None:
    """Refuse to write over sound that no decoding into ``--out`` has made.

    Raises:
        ConfigError: naming the first file.
    """
    if config.audio is None or not config.audio.is_dir():
        return
    for number in range(len(source)):
        for to in targets:
            path = _audio_path(config.audio, _sound_name(source.id(number), to))
            if path.exists():
                raise ConfigError(f"--audio: {path} is there already; choose another folder")


def _sound_name(name: str, to: str | None) -> str:
    return name if to is None else f"{name}-{to}"


def _audio_path(folder: Path, name: str) -> Path:
    return folder / file_name(name, ".wav")


def _settings(
    config: DecodeConfig[Any],
    loaded: LoadedModel,
    predictor: Predictor[Any],
    source: Source,
    sound: SpeechDecoder | None,
) -> dict[str, Any]:
    """Return all that decides what is in the file."""
    return {
        "task": config.task,
        "to": list(config.to),
        "prefix": config.prefix,
        "model": files.sha256(loaded.folder / WEIGHTS),
        "corpus": source.identity,
        "decoding": predictor.settings,
        "precision": config.precision,
        "batch_tokens": config.batch_tokens,
        "seed": config.seed,
        **({"words": True} if config.words else {}),
        **({"edits": files.sha256(config.edits)} if config.edits else {}),
        "audio": None if config.audio is None else str(config.audio),
        "decoder": None if config.decoder is None else str(config.decoder),
        "sound_by": None if sound is None else sound.identity,
    }


def _sidecar(out: Path, kind: str) -> Path:
    return out.with_suffix(f".{kind}")


def _is_done(out: Path, settings: dict[str, Any]) -> bool:
    """Tell whether ``out`` is complete, with all that lies beside it.

    Raises:
        ConfigError: it is another run's.
    """
    made_by = _sidecar(out, "decoding.json")
    if not out.exists():
        return False
    if not made_by.is_file():
        raise ConfigError(f"--out {out} is there, and not ours; remove it or choose another")
    made = files.read_json(made_by)
    _require_unchanged(made["settings"], settings, where=out)
    left_out = _sidecar(out, "skipped.jsonl")
    missing = [left_out] if made["skipped"] and not left_out.is_file() else []
    with out.open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            missing += [] if _is_heard(line, out) else [out.parent / line["audio"]]
    if missing:
        logger.info("%d files of %s are gone, and made again: %s", len(missing), out, missing[0])
    return not missing


def _journal_of(journal: Journal, settings: dict[str, Any], out: Path) -> _Done:
    """Begin or take up a journal; return what it has, and whose sound is still there."""
    records = journal.records()
    if not records:
        journal.append({"settings": settings})
        return _Done(windows=set(), places=set())
    _require_unchanged(records[0]["settings"], settings, where=journal.path.parent)
    lines = [line for record in records[1:] for line in record["lines"]]
    lost = {line["place"][0] // WINDOW for line in lines if not _is_heard(line, out)}
    return _Done(
        windows={record["window"] for record in records[1:] if record["batch"] < 0} - lost,
        places={_place(line) for line in lines if _is_heard(line, out)},
    )


def _is_heard(line: dict[str, Any], out: Path) -> bool:
    """Tell whether the sound of a hypothesis is there, if it has any."""
    return line["audio"] is None or (out.parent / line["audio"]).is_file()


def _require_unchanged(before: dict[str, Any], settings: dict[str, Any], *, where: Path) -> None:
    """Compare what decides what is in the file; the batches don't."""
    if "sound_by" in before:  # says more than where the decoder lies
        settings = {name: one for name, one in settings.items() if name != "decoder"}
    else:  # compat: what was written before it was in them
        settings = {name: one for name, one in settings.items() if name != "sound_by"}
    require_unchanged(before, settings, where=where, may_differ=("batch_tokens",))


def _finish(out: Path, journal: Journal, settings: dict[str, Any], *, seconds: float) -> None:
    """Write the hypotheses in the order of the corpus, and what they were made by."""
    records = journal.records()[1:]
    lines = _last(one for record in records for one in record["lines"])
    skipped = _last(one for record in records for one in record.get("skipped", ()))
    if not lines:
        reason = skipped[0]["reason"] if skipped else "there are none"
        raise CorpusError(f"no utterance could be decoded; the first: {reason}")
    truncated = sum(line["truncated"] for line in lines)
    left_out = _sidecar(out, "skipped.jsonl")
    if skipped:
        files.write_text(left_out, "".join(_json_lines(skipped)))
    else:
        left_out.unlink(missing_ok=True)
    counts = {"lines": len(lines), "skipped": len(skipped), "truncated": truncated}
    files.write_json(_sidecar(out, "decoding.json"), {"settings": settings, **counts})
    files.write_text(out, "".join(_json_lines(lines)))
    logger.info(
        "%d hypotheses in %s; %d truncated at the cap%s; this run: %.1f s",
        len(lines),
        out,
        truncated,
        f"; {len(skipped)} utterances left out ({left_out} says why)" if skipped else "",
        seconds,
    )


def _last(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines in order of place; what was made twice, as it was made last."""
    by_place = {_place(line): line for line in lines}
    return [by_place[place] for place in sorted(by_place)]


def _place(line: dict[str, Any]) -> tuple[int, ...]:
    return tuple(line["place"])


def _json_lines(lines: list[dict[str, Any]]) -> Iterator[str]:
    for line in lines:
        plain = {name: value for name, value in line.items() if name != "place"}
        yield json.dumps(plain, ensure_ascii=False) + "\n"
