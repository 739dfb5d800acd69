"""The embedded corpus: eSpeak NG speaks a synchronous grammar in English, German and French.

    python -m unitone.recipes.espeak --out exp/espeak --hours 1

Origin: made here, from a seed, in seconds; nothing is downloaded. Ten voices, half of them
female, each speak all three languages, and every sentence has exact translations. License: the
texts and the recipe are ours (Apache-2.0); the sound comes from eSpeak NG (GPL-3.0), which only
ever runs in a process of its own and is neither imported nor shipped.

``OUT/audio/ID.flac`` (16 kHz, mono, 16 bit) and ``OUT/manifest.jsonl``, one object a line: id,
audio, text, speaker, language, gender, duration (s), split, translation (language → text) and
phones ([symbol, start, end] in seconds, eSpeak's mnemonics without stress, ``_`` for silence;
they tile the utterance). The id is a meaning and a language: ``000041-de`` and ``000041-fr`` say
the same, in voices drawn independently. A meaning belongs to one split, whatever the seed.

``--voices judge`` makes a corpus for the ASR judge of synthesized speech (`unitone.eval.judge`):
ten voices, none of the ten, and other sentences. As meanings keep to their splits, what is trained
on its train split has met neither a voice nor a test sentence of the main corpus.

The bytes depend on the seed, the number of utterances, the languages and the versions in
``corpus.json``, not on the number of workers. A killed run goes on where it was.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitone import __version__, program
from unitone.config import command_line
from unitone.errors import ConfigError
from unitone.files import read_json, write_json, write_json_lines, write_text
from unitone.logs import Progress
from unitone.recipes.espeak.clauses import Split, draw, split_of
from unitone.recipes.espeak.grammar import LANGUAGES, Clause, Language, render
from unitone.recipes.espeak.sound import Speech, speak, versions
from unitone.recipes.espeak.voices import SPEAKERS, Speaker, VoiceSet
from unitone.resume import Journal, require_unchanged
from unitone.seeding import stream

MEAN_SECONDS = 1.88
"""Mean duration of an utterance, measured, to turn hours into utterances."""

_REVISION = 1  # of the recipe: raise it with every change that moves a byte
_BATCH = 64  # utterances that one process speaks; it starts in 20 ms and leaks 0.2 MB for each
_MAX_DRAWS = 10_000  # draws for one unseen sentence before the grammar counts as exhausted

# Of every ten meanings; the dev and test ones come early, so that a tiny corpus has some of each.
_SPLITS: tuple[Split, ...] = (
    *("train", "test", "train", "dev", "train"),
    *("train", "train", "train", "train", "train"),
)
_VOICES: dict[Language, str] = {"en": "gmw/en", "de": "gmw/de", "fr": "roa/fr"}


@dataclass(frozen=True, kw_only=True)
class EspeakConfig:
    out: Path
    """The folder of the corpus."""
    utterances: int = 1_900
    """The default is about an hour."""
    seed: int = 0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads, each with an eSpeak NG process; they don't change a byte."""
    languages: tuple[Language, ...] = LANGUAGES
    """The languages to speak; texts and translations are always in all three."""
    voices: VoiceSet = "main"
    """Who speaks: main, or judge: other voices and other sentences, to train the ASR judge."""

    def __post_init__(self) -> None:
        if self.utterances < 1:
            raise ConfigError(f"utterances must be at least 1, got {self.utterances}")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")
        distinct = set(self.languages)
        if not distinct or len(distinct) < len(self.languages) or not distinct <= set(LANGUAGES):
            raise ConfigError(
                f"languages must be one or more of {', '.join(LANGUAGES)}, each once, "
                f"got {' '.join(self.languages) or 'none'}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What the random streams of this corpus are called."""
        return ("espeak",) if self.voices == "main" else ("espeak", self.voices)


@dataclass(frozen=True, kw_only=True)
class _Utterance:
    id: str
    clause: Clause
    language: Language
    split: Split
    speaker: Speaker
    speech: Speech

    @property
    def audio(self) -> str:
        return f"audio/{self.id}.flac"


def prepare(config: EspeakConfig) -> Path:
    """Make what is missing of the corpus and return the path of its manifest.

    Raises:
        ConfigError: espeakng-loader is not installed, ``out`` holds something else, or the
            grammar has fewer sentences than asked for.
        CorpusError: eSpeak NG failed.
    """
    manifest, journal = config.out / "manifest.jsonl", Journal(config.out / ".journal.jsonl")
    plan = _plan(config)
    known = [*Journal(manifest).records(), *journal.records()]
    rows = {row["id"]: row for row in known if _is_whole(config.out / row["audio"])}
    missing = [utterance for utterance in plan if utterance.id not in rows]
    _claim(config, to_make=bool(missing))
    if missing:
        try:
            _make(missing, config, journal, rows)
        finally:
            journal.close()
    if missing or not manifest.exists():
        ordered = [rows[utterance.id] for utterance in plan]
        write_text(config.out / "README.md", _readme(config, ordered))
        write_json_lines(manifest, ordered)
    journal.remove()
    return manifest


def _plan(config: EspeakConfig) -> list[_Utterance]:
    """Decide everything but the sound; the first utterances don't depend on how many follow."""
    num_languages = len(config.languages)
    clauses = _clauses(config, -(-config.utterances // num_languages))
    speakers = SPEAKERS[config.voices]
    plan = []
    for index in range(config.utterances):
        meaning, language = index // num_languages, config.languages[index % num_languages]
        clause, split = clauses[meaning]
        name = f"{meaning:06d}-{language}"
        generator = stream(config.seed, *config.names, "voice", name)
        speaker = speakers[int(generator.integers(len(speakers)))]
        speech = Speech(
            text=render(clause, language),
            voice=f"{_VOICES[language]}+{speaker.name}",
            rate=round(speaker.rate * generator.uniform(0.92, 1.08)),
            pitch=speaker.pitch + int(generator.integers(-6, 7)),
            pitch_range=int(generator.integers(40, 66)),
            peak=float(generator.uniform(0.4, 0.8)),
        )
        plan.append(
            _Utterance(
                id=name,
                clause=clause,
                language=language,
                split=split,
                speaker=speaker,
                speech=speech,
            )
        )
    return plan


def _clauses(config: EspeakConfig, number: int) -> list[tuple[Clause, Split]]:
    """Draw ``number`` different clauses, each from the split that its position asks for."""
    generator = stream(config.seed, *config.names, "clauses")
    seen: set[Clause] = set()
    clauses = []
    for position in range(number):
        split = _SPLITS[position % len(_SPLITS)]
        for _ in range(_MAX_DRAWS):
            clause = draw(generator)
            if clause not in seen and split_of(clause) == split:
                break
        else:
            raise ConfigError(f"the grammar has too few sentences for {number} of them")
        seen.add(clause)
        clauses.append((clause, split))
    return clauses


def _is_whole(audio: Path) -> bool:
    return audio.is_file() and audio.stat().st_size > 0  # empty after a power cut


def _claim(config: EspeakConfig, *, to_make: bool) -> None:
    """Write what decides the bytes to ``corpus.json``, or compare it with what is there.

    A finished corpus may be used whatever is installed now; making more of it needs the versions
    that began it.
    """
    path = config.out / "corpus.json"
    wanted: dict[str, Any] = {
        "recipe": "espeak",
        "utterances": config.utterances,
        "seed": config.seed,
        "languages": list(config.languages),
    }
    if config.voices != "main":
        wanted["voices"] = config.voices
    if to_make:
        wanted |= {"revision": _REVISION, "versions": versions()}
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in config.out.glob("*")):
            raise ConfigError(
                f"{config.out} is not empty and holds no corpus of this recipe: "
                "choose another --out"
            )
        write_json(path, wanted)
        return
    defaults = {"voices": "main"}  # not written where it is the default
    require_unchanged(defaults | read_json(path), defaults | wanted, where=config.out)


def _make(
    missing: Sequence[_Utterance],
    config: EspeakConfig,
    journal: Journal,
    rows: dict[str, dict[str, Any]],
) -> None:
    """Speak ``missing``; add each utterance to ``rows`` and the journal once it is on disk."""
    (config.out / "audio").mkdir(exist_ok=True)
    for stale in (*config.out.glob(".*.tmp"), *config.out.glob("audio/.*.tmp")):
        stale.unlink()
    size = min(_BATCH, -(-len(missing) // config.workers))
    batches = [missing[start : start + size] for start in range(0, len(missing), size)]
    hours = 0.0
    with (
        Progress("speaking", total=float(len(missing)), unit="utt") as progress,
        ThreadPoolExecutor(config.workers) as pool,
    ):
        futures = [pool.submit(_make_batch, batch, config.out) for batch in batches]
        try:
            for future in as_completed(futures):
                for row in future.result():
                    journal.append(row)
                    rows[row["id"]] = row
                    hours += row["duration"] / 3600
                progress.note(hours=f"{hours:.2f}")
                progress.advance(float(len(future.result())))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _make_batch(batch: Sequence[_Utterance], out: Path) -> list[dict[str, Any]]:
    spoken = speak([one.speech for one in batch], [out / one.audio for one in batch])
    rows = []
    for utterance, (duration, phones) in zip(batch, spoken, strict=True):
        texts = {language: render(utterance.clause, language) for language in LANGUAGES}
        row = {
            "id": utterance.id,
            "audio": utterance.audio,
            "text": texts.pop(utterance.language),
            "speaker": utterance.speaker.name,
            "language": utterance.language,
            "gender": utterance.speaker.gender,
            "duration": duration,
            "split": utterance.split,
            "translation": texts,
            "phones": phones,
        }
        rows.append(row)
    return rows


def _readme(config: EspeakConfig, rows: Sequence[dict[str, Any]]) -> str:
    hours = sum(row["duration"] for row in rows) / 3600
    splits = Counter(row["split"] for row in rows)
    voices = "" if config.voices == "main" else f" --voices {config.voices}"
    made_by = read_json(config.out / "corpus.json")["versions"]
    programs = ", ".join(f"{name} {version}" for name, version in made_by.items())
    return f"""\
# Synthetic speech of eSpeak NG

{len(rows)} utterances, {hours:.2f} hours, 16 kHz mono FLAC:
{splits["train"]} train, {splits["dev"]} dev, {splits["test"]} test.
`manifest.jsonl` has a line for each; its fields are described in the module that made this.

Made by

    python -m unitone.recipes.espeak --out OUT --utterances {config.utterances} \\
        --seed {config.seed} --languages {" ".join(config.languages)}{voices}

with unitone {__version__}, {programs}.
The same command with the same versions gives the same bytes.

The sentences are drawn from a grammar that is part of Unitone (Apache-2.0). The sound was
computed by eSpeak NG, a program under the GNU General Public License, version 3 or later; the
program is not part of this folder. No human voice was recorded.
"""


@dataclass(frozen=True, kw_only=True)
class EspeakCommand:
    """The options of the command line: those of `EspeakConfig`, and the size in hours."""

    out: Path
    """The folder of the corpus."""
    hours: float | None = None
    """Hours of speech, within a few per cent; the default is 1. Or give --utterances."""
    utterances: int | None = None
    """Number of utterances, about 1900 an hour."""
    seed: int = 0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads, each with an eSpeak NG process; they don't change a byte."""
    languages: tuple[Language, ...] = LANGUAGES
    """The languages to speak."""
    voices: VoiceSet = "main"
    """Who speaks: main, or judge: other voices and other sentences, to train the ASR judge."""

    def config(self) -> EspeakConfig:
        """Return what to prepare."""
        if self.hours is not None and self.utterances is not None:
            raise ConfigError("give --hours or --utterances, not both")
        utterances = self.utterances
        if utterances is None:
            hours = 1.0 if self.hours is None else self.hours
            utterances = round(hours * 3600 / MEAN_SECONDS)
        return EspeakConfig(
            out=self.out,
            utterances=utterances,
            seed=self.seed,
            workers=self.workers,
            languages=self.languages,
            voices=self.voices,
        )


def make(command: EspeakCommand) -> None:
    """Make the corpus and print the path of its manifest."""
    print(prepare(command.config()))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    command = command_line(EspeakCommand, argv, __doc__)
    return program.run(lambda: make(command))


if __name__ == "__main__":
    sys.exit(main())
