"""Three lines from a model directory to an answer.

>>> model = unitone.load("exp/tour/lm/best")  # doctest: +SKIP
>>> model.transcribe("a.wav")  # doctest: +SKIP
'two dogs are playing'
>>> wave, rate = model.speak("two dogs are playing", speaker="f1")  # doctest: +SKIP

A recording is the path of an audio file, or samples at 16 kHz. Every method has a plural form where
several at once are cheaper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from unitone import audio
from unitone.audio import SAMPLE_RATE
from unitone.codecs.codec import Codec, Sound
from unitone.errors import ConfigError, CorpusError
from unitone.lm import family
from unitone.lm.data.sources import runs
from unitone.lm.decoder.layout import Output
from unitone.lm.decoder.predictor import Performer, Said, checker, open_composer
from unitone.lm.family import Loaded, Precision
from unitone.lm.speaking import Speech, Voice, codec_of
from unitone.lm.tasks import select
from unitone.tokenizers.tokenizer import Tokenizer, UnitExtractor

Recording = str | Path | Float[np.ndarray, "_"]

CANDIDATES, TEMPERATURE = 16, 0.4
"""Where the model can read back what it says, it says the likeliest of so many, drawn like this."""
DEFAULT_MODEL = Path("exp/tour/lm/best")
"""What the commands use where no model is named: the tour's."""


def load(
    path: str | Path,
    *,
    decoder: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
) -> "UnifiedModel":
    """Read a model directory.

    Args:
        path: what training wrote, ``exp/run/best``.
        decoder: directory of a unit decoder or of the model's codec; default: the one in ``path``.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, or bf16, which is faster where the processor has it.

    Raises:
        ConfigError: there is no such directory or device.
        CheckpointError: it is damaged.
    """
    loaded = family.load(Path(path), device=device, precision=precision)
    return UnifiedModel(loaded, decoder=None if decoder is None else Path(decoder))


class UnifiedModel:
    """One model for every task of its table; encoder and unit decoder are opened when needed."""

    def __init__(self, loaded: Loaded, *, decoder: Path | None = None) -> None:
        """Use a model that was read; ``decoder`` is a unit decoder or codec instead of its own."""
        self.loaded = loaded
        self._decoder = decoder
        self._composer = open_composer(loaded)
        self._performers: dict[tuple[str, bool], Performer] = {}
        self._units: UnitExtractor | None = None
        self._voices: dict[str, Voice] = {}
        self._codec: Codec | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks it was trained for."""
        return tuple(task.name for task in self.loaded.tasks)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages it knows."""
        return self.loaded.vocabulary.block("language").labels

    @property
    def speakers(self) -> tuple[str, ...]:
        """The voices it knows by name."""
        return self.loaded.vocabulary.block("speaker").labels

    def transcribe(self, recording: Recording) -> str:
        """Return what is said.

        Raises:
            CorpusError: the recording can't be used, or is longer than the model's context.
            ConfigError: the model does not have this task. (So of all methods.)
        """
        return self.transcribe_all([recording])[0]

    def transcribe_all(self, recordings: Sequence[Recording]) -> list[str]:
        """Return what is said in each recording; errors as `transcribe`."""
        return [output.text or "" for output in self._listen("asr", recordings)]

    def translate(self, source: Recording, *, to: str, language: str | None = None) -> str:
        """Return a recording, or a text, in another language.

        A `str` that ends like an audio file is one; any other is text.

        Args:
            source: what is to be translated.
            to: its language afterwards.
            language: its language before; the model needs no telling.

        Raises:
            CorpusError: the recording can't be used, or something is longer than the context.
            ConfigError: an unknown language.
        """
        self._known(to)
        if isinstance(source, str) and not _is_audio(source):
            row = {"id": "text", "text": source, "language": language}
            return self._perform("mt", [row], to=to)[0].text or ""
        return self._listen("st", [source], to=to)[0].text or ""

    def speak(
        self,
        text: str,
        *,
        speaker: str | None = None,
        language: str | None = None,
        sample: Recording | None = None,
    ) -> Sound:
        """Return (waveform, rate) of ``text`` spoken.

        Args:
            text: as the model was trained on it: mind the case and the punctuation.
            speaker: one of ``speakers``; default: the first.
            language: one of ``languages``; default: the one the model finds the text likeliest in.
            sample: of somebody whose way of speaking the units follow, where the model has a task
                for it; the voice of the sound is still ``speaker``'s.

        Raises:
            ConfigError: an unknown speaker or language, there is no unit decoder, or no task for a
                sample.
            CorpusError: the sample can't be used, the text is empty, has characters the model
                can't write, is too long, or the model had nothing to say.
        """
        task = "tts" if sample is None else self._sampling_task()
        voice = self._open_voice(task)
        name = speaker or next(iter(self.speakers), None)
        for value, kind in ((name, "speaker"), (language, "language")):
            if value is not None:
                self._known(value, kind)
        given: dict[str, Any] = {"text": text, "speaker": name}
        if sample is not None:
            given["sample"] = self._heard(sample)["units"]
        spoken = self._spoken(task, given, language=language)
        (sound,) = voice.say([spoken], speakers=[name])
        if sound is None:
            raise CorpusError("the model ended before it said anything; is the text like its own?")
        return sound

    def _spoken(
        self, task: str, given: Mapping[str, Any], *, language: str | None
    ) -> Int32[np.ndarray, "..."] | None:
        """Return what is to be said; of several languages, in that with the best score."""
        performer = self._performer(task)
        if language is None and "language" in performer.needs and self.languages:
            rows = [{"id": "text", "language": one, **given} for one in self.languages]
            said = performer.run([performer.job(row) for row in rows])
            scores = {one: found.score for one, found in zip(self.languages, said, strict=True)}
            language = max(scores, key=lambda one: scores[one])
        speaking = self._performer(task, careful=True)
        (chosen,) = speaking.run([speaking.job({"id": "text", "language": language, **given})])
        return chosen.output.spoken

    def _sampling_task(self) -> str:
        for task in self.loaded.tasks:
            if task.output in ("units", "codes") and {"text", "sample"} <= {*task.fields}:
                return task.name
        raise ConfigError("this model follows no sample: no task of it reads {text} and {sample}")

    def identify_language(self, recording: Recording) -> str:
        """Return the language that is spoken; errors as `transcribe`."""
        return self._listen("lid", [recording])[0].label or ""

    def identify_gender(self, recording: Recording) -> str:
        """Return the class of the speaker's voice; errors as `transcribe`."""
        return self._listen("gid", [recording])[0].label or ""

    def continue_speech(self, recording: Recording, *, speaker: str | None = None) -> Sound:
        """Return the recording's units or codes, and how the model goes on, as sound.

        Raises:
            CorpusError: the recording can't be used, or fills the context.
            ConfigError: there is no unit decoder.
        """
        voice = self._open_voice("continue")
        performer = self._performer("continue")
        row = self._heard(recording, performer.task.output)
        prefix = self._composer.size(performer.task, self._composer.record(row))
        job = performer.job(row, prefix=prefix)
        (said,) = performer.run([job])
        (sound,) = voice.say([said.output.spoken], speakers=[speaker])
        assert sound is not None
        return sound

    def _listen(
        self, task: str, recordings: Sequence[Recording], *, to: str | None = None
    ) -> list[Output]:
        field = "codes" if "codes" in self._performer(task).needs else "units"
        return self._perform(task, [self._heard(one, field) for one in recordings], to=to)

    def _heard(self, recording: Recording, field: str = "units") -> dict[str, Any]:
        if field == "codes":
            return self._coded(recording)
        if self._units is None:
            assert self.loaded.tokenizer is not None
            device = str(next(self.loaded.model.parameters()).device)
            self._units = Tokenizer.load(self.loaded.tokenizer).open(device=device)
        name = "samples" if isinstance(recording, np.ndarray) else str(recording)
        return {"id": name, "units": runs(self._units(recording), self._units)}

    def _coded(self, recording: Recording) -> dict[str, Any]:
        if self._codec is None:
            self._codec = codec_of(self.loaded, self._decoder)
        if isinstance(recording, np.ndarray):
            name, wave, rate = "samples", recording, SAMPLE_RATE
        else:
            name, rate = str(recording), self._codec.sample_rate
            wave = audio.read(audio.Clip(path=Path(recording)), rate=rate)
        try:
            return {"id": name, "codes": self._codec.encode(wave, rate)}
        except ValueError as error:
            raise CorpusError(f"{name}: {error}") from error

    def _perform(
        self, task: str, rows: Sequence[dict[str, Any]], *, to: str | None = None
    ) -> list[Output]:
        performer = self._performer(task)
        jobs = [performer.job(row, to=to) for row in rows]
        said: dict[int, Said] = {}
        for batch in performer.batches(jobs):
            found = performer.run([jobs[number] for number in batch])
            said |= dict(zip(batch, found, strict=True))
        return [said[number].output for number in range(len(jobs))]

    def _performer(self, task: str, *, careful: bool = False) -> Performer:
        """Return who does ``task``; ``careful`` takes the best of several, where it can tell."""
        key = (task, careful)
        if key not in self._performers:
            (row,) = select(self.loaded.tasks, [task])
            decoding = row.decoding
            if careful and checker(row, self.loaded.tasks):
                decoding = replace(decoding, beam=1, temperature=TEMPERATURE, candidates=CANDIDATES)
            self._performers[key] = Performer(
                self.loaded, task, decoding=decoding, composer=self._composer
            )
        return self._performers[key]

    def _open_voice(self, task: str) -> Voice:
        (row,) = select(self.loaded.tasks, [task])
        speech: Speech = "codes" if row.output == "codes" else "units"
        if speech not in self._voices:
            self._voices[speech] = Voice(self.loaded, decoder=self._decoder, speech=speech)
        return self._voices[speech]

    def _known(self, label: str, kind: str = "language") -> None:
        labels = self.loaded.vocabulary.block(kind).labels
        if label not in labels:
            raise ConfigError(f"no {kind} {label!r}; the model has {', '.join(labels) or 'none'}")


def open_model(
    path: Path | None, *, device: str = "auto", decoder: Path | None = None
) -> UnifiedModel:
    """Load what a command's ``--model`` names, or the tour's.

    Raises:
        ConfigError: nothing is named, and the tour has not been run here.
    """
    if path is None and not DEFAULT_MODEL.is_dir():
        raise ConfigError(
            f"name a model with --model; the default, {DEFAULT_MODEL}, is not there: "
            "`unitone tour` (or `make tour`) makes it"
        )
    return load(path or DEFAULT_MODEL, device=device, decoder=decoder)


def _is_audio(source: str) -> bool:
    """Tell the name of an audio file from a text."""
    endings = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".sph", ".m4a"}
    return Path(source).suffix.lower() in endings
