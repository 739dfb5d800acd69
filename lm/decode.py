"""Generate for a corpus: ``python -m lm.decode --model M --task asr --tokens T --out H.jsonl``.

The corpus is token shards (``--tokens``), or a manifest (``--manifest``) whose recordings go
through the model's own tokenizer or codec. The hypotheses are JSON lines in the order of the
corpus: ``id``, ``task``, ``to``, ``text``, ``label``, ``units``, ``codes``, ``audio``, ``score``,
``truncated``; beside them ``<out>.decoding.json`` says how they were made, and
``<out>.skipped.jsonl`` which utterances could not be decoded and why. The job may be killed at any
moment; run again, it goes on, and the file is the same.
"""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitone import config as configs
from unitone import files, program
from unitone.config import command_line
from unitone.errors import ConfigError, CorpusError
from unitone.lm import family
from unitone.lm.data.sources import Rows, SourceConfig
from unitone.lm.decoder.predictor import MAX_TOKENS, Job, Performer
from unitone.lm.speaking import Speech, Voice
from unitone.lm.tasks import Decoding, select
from unitone.logs import Progress
from unitone.resume import Journal

logger = logging.getLogger(__name__)

WINDOW = 512
"""Utterances that are sorted by length together: batches are of one window."""


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Instead of the task's own settings."""

    beam: int | None = None
    """Hypotheses kept; 1 is greedy or, with a temperature, sampling."""
    length_penalty: float | None = None
    """Exponent of the length that a hypothesis' score is divided by."""
    temperature: float | None = None
    """0 takes the likeliest token; above, tokens are drawn."""
    top_k: int | None = None
    """Draw from the k likeliest; 0 is all."""
    top_p: float | None = None
    """Draw from the likeliest tokens that hold this much probability."""
    repetition_penalty: float | None = None
    """Divides the logits of tokens that were emitted before."""
    no_repeat: int | None = None
    """Forbid a run of this many tokens to come back; 0 allows it."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is without."""
    candidates: int | None = None
    """Drawn for each utterance, of which the task that reads the output back chooses."""
    max_tokens: int | None = None
    """Hard cap on new tokens; who meets it is marked as truncated."""
    max_ratio: float | None = None
    """Cap of new tokens per token of the prompt, plus 10; 0 is none."""
    min_tokens: int | None = None
    """No end before so many tokens."""

    def of(self, decoding: Decoding) -> Decoding:
        """Return ``decoding`` with what is given here; a search that is asked for doesn't draw."""
        given = {name: one for name, one in dataclasses.asdict(self).items() if one is not None}
        if given.get("temperature") == 0 or given.get("beam", 1) > 1:
            given = {"temperature": 0.0, "top_k": 0, "top_p": 1.0} | given
        return dataclasses.replace(decoding, **given)


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    model: Path
    """Model directory, as training writes it."""
    task: str
    """A task of the model's table: asr, tts, st, mt, lid, gid, continue, …"""
    out: Path
    """File for the hypotheses, JSON lines."""
    source: SourceConfig
    to: tuple[str, ...] = ()
    """Languages to translate into (st, mt)."""
    prefix: int = 0
    """Tokens of the target, or frames of codes, that are given, as in speech continuation."""
    audio: Path | None = None
    """Folder for what the decoder makes of generated units or codes, WAV."""
    decoder: Path | None = None
    """Directory of a unit decoder, or of the codec of the codes; default: the model's own."""
    decoding: Overrides = field(default_factory=Overrides)
    batch_tokens: int = MAX_TOKENS
    """Prompt tokens of a batch, padding included."""
    precision: family.Precision = "fp32"
    """fp32 or bf16, which is faster where the processor has it and rounds differently."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    seed: int = 0
    """Of what is drawn, with a temperature."""


def decode(config: DecodeConfig) -> None:
    """Write the hypotheses; do only what is missing."""
    if config.out.suffix != ".jsonl":
        raise ConfigError(f"--out {config.out}: the hypotheses are JSON lines, call them *.jsonl")
    if config.prefix < 0 or config.batch_tokens < 1:
        raise ConfigError("--prefix must be 0 or more, --batch-tokens 1 or more")
    loaded = family.load(config.model, device=config.device, precision=config.precision)
    (task,) = select(loaded.tasks, [config.task])
    decoding = config.decoding.of(task.decoding)
    performer = Performer(loaded, config.task, decoding=decoding, seed=config.seed)
    targets = _targets(config, performer)
    voice = None
    if config.audio is not None:
        if task.output not in ("units", "codes"):
            raise ConfigError(f"--audio: task {task.name} says {task.output}, not units or codes")
        speech: Speech = "codes" if task.output == "codes" else "units"
        voice = Voice(loaded, decoder=config.decoder, speech=speech)
    needs = _needs(performer, config.prefix)
    rows = Rows(config.source, loaded, needs=needs, decoder=config.decoder)
    settings = _settings(config, decoding, rows)
    if _is_done(config.out, settings):
        logger.info("%s was there already", config.out)
        return
    work = config.out.with_name(f".{config.out.name}.work")
    with files.locked(work):
        journal = Journal(work / "journal.jsonl")
        done = _journal_of(journal, settings, config.out)
        run = _Run(config=config, performer=performer, rows=rows, targets=targets, voice=voice)
        started = time.perf_counter()
        try:
            run.windows(journal, done)
        finally:
            journal.close()
        _finish(config.out, journal, settings, seconds=time.perf_counter() - started)
        journal.remove()
    work.rmdir()


def _targets(config: DecodeConfig, performer: Performer) -> tuple[str | None, ...]:
    """Return the languages to go to, (None,) where the task has no choice."""
    chooses = "to" in performer.needs
    if chooses and not config.to:
        raise ConfigError(f"--task {config.task} translates: say into what, as in --to de")
    if config.to and not chooses:
        raise ConfigError(f"--to: task {config.task} has no choice of language")
    for language in config.to:
        performer.composer.vocabulary.id(f"<language:{language}>")
    return config.to or (None,)


def _needs(performer: Performer, prefix: int) -> frozenset[str]:
    return frozenset({*performer.needs, *([performer.task.output] if prefix else [])})


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The work of one call."""

    config: DecodeConfig
    performer: Performer
    rows: Rows
    targets: tuple[str | None, ...]
    voice: Voice | None

    def windows(self, journal: Journal, done: set[tuple[int, int]]) -> None:
        """Decode what isn't ``done``, (window, batch) by (window, batch); -1 is a whole window."""
        total = float(len(self.rows) * len(self.targets))
        with Progress("decode", total=total, unit="utterance") as bar:
            for window, first in enumerate(range(0, len(self.rows), WINDOW)):
                last = min(first + WINDOW, len(self.rows))
                if (window, -1) not in done:
                    self._window(window, range(first, last), journal, done)
                bar.advance(float((last - first) * len(self.targets)))

    def _window(
        self, window: int, numbers: range, journal: Journal, done: set[tuple[int, int]]
    ) -> None:
        jobs: list[Job] = []
        places: list[tuple[int, int]] = []
        speakers: list[str | None] = []
        skipped: list[dict[str, Any]] = []
        for number, row in zip(numbers, self.rows.read(numbers), strict=True):
            for order, to in enumerate(self.targets):
                place = (number, order)
                try:
                    if isinstance(row, str):
                        raise CorpusError(row)
                    if to is not None and to == row.get("language"):
                        raise CorpusError(f"{row['id']}: is in {to} already")
                    jobs.append(self.performer.job(row, to=to, prefix=self.config.prefix))
                except CorpusError as error:
                    skipped.append(
                        {"place": place, "id": self.rows.id(number), "to": to, "reason": str(error)}
                    )
                else:
                    places.append(place)
                    speakers.append(row.get("speaker"))
        batches = self.performer.batches(jobs, max_tokens=self.config.batch_tokens)
        for batch, members in enumerate(batches):
            if (window, batch) in done:
                continue
            lines = self._batch([jobs[one] for one in members], [speakers[one] for one in members])
            for line, one in zip(lines, members, strict=True):
                line["place"] = places[one]
            journal.append({"window": window, "batch": batch, "lines": lines})
        journal.append({"window": window, "batch": -1, "lines": [], "skipped": skipped})

    def _relative(self, path: Path) -> str:
        """Return a file's path as seen from the hypotheses, so that the two can move together."""
        folder = self.config.out.parent.resolve()
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()

    def _batch(self, jobs: list[Job], speakers: list[str | None]) -> list[dict[str, Any]]:
        said = self.performer.run(jobs)
        audio: list[Path | None] = [None] * len(jobs)
        if self.voice is not None:
            assert self.config.audio is not None
            names = [job.id if job.to is None else f"{job.id}-{job.to}" for job in jobs]
            audio = self.voice.write(
                [one.output.spoken for one in said],
                speakers=speakers,
                files_at=[_audio_path(self.config.audio, name) for name in names],
            )
        return [
            {
                "id": job.id,
                "task": self.config.task,
                "to": job.to,
                "text": one.output.text,
                "label": one.output.label,
                "units": None if one.output.units is None else one.output.units.tolist(),
                "codes": None if one.output.codes is None else one.output.codes.tolist(),
                "audio": None if path is None else self._relative(path),
                "score": round(one.score, 6),
                "truncated": one.truncated,
            }
            for job, one, path in zip(jobs, said, audio, strict=True)
        ]


def _audio_path(folder: Path, name: str) -> Path:
    from urllib.parse import quote

    return folder / f"{quote(name, safe=' ')}.wav"


def _settings(config: DecodeConfig, decoding: Decoding, rows: Rows) -> dict[str, Any]:
    """Return all that decides what is in the file."""
    weights = config.model / family.WEIGHTS
    return {
        "task": config.task,
        "to": list(config.to),
        "prefix": config.prefix,
        "model": files.sha256(weights),
        "corpus": rows.identity,
        "decoding": configs.to_dict(decoding),
        "precision": config.precision,
        "batch_tokens": config.batch_tokens,
        "seed": config.seed,
        "audio": None if config.audio is None else str(config.audio),
        "decoder": None if config.decoder is None else str(config.decoder),
    }


def _sidecar(out: Path, kind: str) -> Path:
    return out.with_suffix(f".{kind}")


def _is_done(out: Path, settings: dict[str, Any]) -> bool:
    """Tell whether ``out`` is complete.

    Raises:
        ConfigError: it is another run's.
    """
    made_by = _sidecar(out, "decoding.json")
    if not out.exists():
        return False
    if not made_by.is_file():
        raise ConfigError(f"--out {out} is there, and not ours; remove it or choose another")
    _require_same(files.read_json(made_by)["settings"], settings, out)
    return True


def _journal_of(journal: Journal, settings: dict[str, Any], out: Path) -> set[tuple[int, int]]:
    """Begin or take up a journal; return the batches that it has."""
    records = journal.records()
    if not records:
        journal.append({"settings": settings})
        return set()
    _require_same(records[0]["settings"], settings, journal.path.parent)
    return {(record["window"], record["batch"]) for record in records[1:]}


def _require_same(theirs: dict[str, Any], ours: dict[str, Any], out: Path) -> None:
    differing = [name for name in ours if theirs.get(name) != ours[name]]
    if differing:
        raise ConfigError(
            f"{out} was begun with other settings ({', '.join(differing)}); "
            "remove it or choose another --out"
        )


def _finish(out: Path, journal: Journal, settings: dict[str, Any], *, seconds: float) -> None:
    """Write the hypotheses in the order of the corpus, and what is to be said of them."""
    records = journal.records()[1:]
    lines = sorted((one for record in records for one in record["lines"]), key=_place)
    skipped = sorted((one for record in records for one in record.get("skipped", ())), key=_place)
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
        "%d hypotheses in %s; %d met the cap%s; this run: %.1f s",
        len(lines),
        out,
        truncated,
        f"; {len(skipped)} utterances left out ({left_out} says why)" if skipped else "",
        seconds,
    )


def _place(line: dict[str, Any]) -> tuple[int, ...]:
    return tuple(line["place"])


def _json_lines(lines: list[dict[str, Any]]) -> Iterator[str]:
    for line in lines:
        plain = {name: value for name, value in line.items() if name != "place"}
        yield json.dumps(plain, ensure_ascii=False) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(DecodeConfig, argv, __doc__)
    return program.run(lambda: decode(config))


if __name__ == "__main__":
    raise SystemExit(main())
