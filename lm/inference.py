"""Three lines from a model directory to an answer.

>>> model = unitone.load("exp/tour/lm/best")  # doctest: +SKIP
>>> model.transcribe("a.wav")  # doctest: +SKIP
'two dogs are playing'
>>> wave, rate = model.speak("two dogs are playing", speaker="f1")  # doctest: +SKIP

A recording is the path of an audio file, samples at 16 kHz, or a pair of samples and their rate.
What is cut off, too faint to be understood, or written in characters that were never learnt is said
in a warning of the log, which goes to standard error.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitone.codecs.codec import Codec, Sound
from unitone.corpus import audio
from unitone.corpus.audio import Clip, Recording, Statistics, faintness, is_path, statistics
from unitone.errors import ConfigError, CorpusError, choices
from unitone.lm import family
from unitone.lm.data.fields import unlearnt_message
from unitone.lm.data.sources import timed_runs
from unitone.lm.data.waveforms import SPOKEN, SpeechDecoder, codec_of
from unitone.lm.family import LoadedModel
from unitone.lm.options import DecodingPrecision
from unitone.lm.predictor import (
    Prediction,
    Predictor,
    Word,
    predict_all,
    require_times,
    require_verifier,
)
from unitone.lm.tasks import select
from unitone.tokenizers.tokenizer import Tokenizer, UnitExtractor

logger = logging.getLogger(__name__)

DEFAULT_MODEL = Path("exp/tour/lm/best")
"""What the commands use where no model is named: the tour's."""


def load(
    path: str | Path,
    *,
    decoder: str | Path | None = None,
    device: str = "auto",
    precision: DecodingPrecision = "fp32",
) -> "UnifiedModel":
    """Read a model directory.

    Args:
        path: what training wrote, ``exp/run/best``.
        decoder: directory of a unit decoder or of the model's codec; default: the one in ``path``.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32; bf16, which is faster where the processor has it; or int8, on a CPU.

    Raises:
        ConfigError: there is no such directory or device.
        CheckpointError: it is damaged.
    """
    loaded = family.load(path, device=device, precision=precision)
    return UnifiedModel(loaded, decoder=None if decoder is None else Path(decoder))


class UnifiedModel:
    """One model for every task of its table; encoder and unit decoder are opened when needed."""

    def __init__(self, loaded: LoadedModel, *, decoder: Path | None = None) -> None:
        """Use a model that was read; ``decoder`` is a unit decoder or codec instead of its own."""
        self.loaded = loaded
        self._decoder = decoder
        self._fields = loaded.fields
        self._predictors: dict[tuple[str, bool], Predictor[Any]] = {}
        self._units: UnitExtractor | None = None
        self._speech_decoders: dict[str, SpeechDecoder] = {}
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
        """Speakers it knows by name."""
        return self.loaded.speakers

    def transcribe(self, recording: Recording) -> str:
        """Return what is said.

        Raises:
            CorpusError: the recording can't be used, or is longer than the model's context.
            ConfigError: the model does not have this task. (So of all methods.)
        """
        return self.transcribe_all([recording])[0]

    def transcribe_all(self, recordings: Sequence[Recording]) -> list[str]:
        """Return what is said in each recording; errors as `transcribe`."""
        if is_path(recordings):
            raise ConfigError(f"give a list of recordings, not one: [{recordings!r}]")
        return [found.text or "" for found in self._listen("asr", recordings)]

    def transcribe_words(self, recording: Recording) -> tuple[Word, ...]:
        """Return the words that are said, with times and confidences; errors as `transcribe`.

        Raises:
            ConfigError: also, the model is of a family that doesn't know when a word is said.
        """
        predictor = require_times(self._predictor("asr"))
        request = self._request(self._predictor("asr"), self._row(recording))
        return predictor.timed([request])[0].words or ()

    def edit(
        self,
        recording: Recording,
        *,
        edited: str,
        text: str | None = None,
        speaker: str | None = None,
        language: str | None = None,
    ) -> Prediction:
        """Return the units of a recording that says ``edited``; ``span`` tells which are new.

        Words may be replaced, inserted and deleted, the first and the last too. Units outside the
        words that change are those of the recording.

        Args:
            recording: at least as long as its text.
            edited: what it shall say.
            text: what it says; default: what the model hears.
            speaker: who speaks, where the model knows him or her.
            language: of both texts, where the model knows it.

        Raises:
            CorpusError: the recording can't be used, or a text is empty or too long for it.
            ConfigError: an unknown speaker or language, or a model that can't edit.
        """
        for kind, label in (("speaker", speaker), ("language", language)):
            if label is not None:
                self.loaded.require(kind, label)
        predictor = self._predictor("edit")
        row = self._row(recording)
        if text is None:
            text = self._predict("asr", [row])[0].text
        self._check_text(edited)
        row |= {"text": text, "edited": edited, "speaker": speaker, "language": language}
        return predictor.predict([self._request(predictor, row)])[0]

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
        self.loaded.require("language", to)
        if isinstance(source, str) and not _is_audio(source):
            self._check_text(source)
            row = {"id": "text", "text": source, "language": language}
            return self._predict("mt", [row], to=to)[0].text or ""
        return self._listen("st", [source], to=to)[0].text or ""

    def speak(
        self,
        text: str,
        *,
        speaker: str | None = None,
        language: str | None = None,
        prompt: Recording | None = None,
        verify: bool = False,
    ) -> Sound:
        """Return (waveform, rate) of ``text`` spoken.

        Args:
            text: as the model was trained on it: mind the case and the punctuation.
            speaker: one of ``speakers`` whom the unit decoder has heard; default: the first.
            language: one of ``languages``; default: the one the model finds the text likeliest in.
            prompt: of somebody whose way of speaking the units follow, where the model has a task
                for it; the voice of the sound is still ``speaker``'s.
            verify: recognize what was made, and make again what isn't the text, where the model's
                family can; what stays wrong is said in the log.

        Raises:
            ConfigError: an unknown speaker or language, there is no unit decoder, or no task for a
                prompt.
            CorpusError: the prompt can't be used, the text is empty, has characters the model
                can't write, is too long, or the model generated nothing.
        """
        task = "tts" if prompt is None else self._prompted_task()
        decoder = self._speech_decoder(task)
        name = self._voice(decoder, speaker)
        if language is not None:
            self.loaded.require("language", language)
        self._check_text(text)
        given: dict[str, Any] = {"text": text, "speaker": name}
        if prompt is not None:
            given["prompt_units"] = self._row(prompt)["units"]
        chosen = self._speech(task, given, language=language, verify=verify)
        (sound,) = decoder.decode([chosen], speakers=[name])
        if sound is None:
            raise CorpusError("the model ended before it said anything; is the text like its own?")
        return sound

    def _speech(
        self, task: str, given: Mapping[str, Any], *, language: str | None, verify: bool
    ) -> Prediction:
        """Return the speech of a text; of several languages, in that with the best score."""
        predictor = self._predictor(task)
        if language is None and "language" in predictor.task.inputs and self.languages:
            rows = [{"id": "text", "language": one, **given} for one in self.languages]
            found = predictor.predict([self._request(predictor, row) for row in rows])
            scores = {one: made.score for one, made in zip(self.languages, found, strict=True)}
            language = max(scores, key=lambda one: scores[one])
        careful = self._predictor(task, careful=True)
        row = {"id": "text", "language": language, **given}
        requests = [self._request(careful, row)]
        made = require_verifier(careful).verified if verify else careful.predict
        (chosen,) = _told(["text"], made(requests))
        return chosen

    def _check_text(self, text: str) -> None:
        """Warn of what training has never seen; a CorpusError where that is most of the text."""
        if not isinstance(text, str):
            raise CorpusError(f"a text must be a str, got {type(text).__name__}")
        self._fields.record({"id": "text", "text": text})
        unlearnt = self._fields.unlearnt(text)
        if unlearnt:
            logger.warning("%s", unlearnt_message(unlearnt))

    def _voice(self, decoder: SpeechDecoder, speaker: str | None) -> str | None:
        """Return ``speaker``, or the first whom both model and decoder know.

        Raises:
            ConfigError: one of them doesn't know him or her, or they have nobody in common.
        """
        if not self.speakers:
            return _heard(decoder, speaker)
        if speaker is not None:
            self.loaded.require("speaker", speaker)
        heard = decoder.speakers or self.speakers
        common = [name for name in self.speakers if name in heard]
        if speaker in common:
            return speaker
        whom = f"speaker {speaker!r}" if speaker else "any speaker of the model"
        if speaker is not None or not common:
            raise ConfigError(
                f"the unit decoder has not heard {whom}; both know {choices(speaker or '', common)}"
            )
        return common[0]

    def _prompted_task(self) -> str:
        for task in self.loaded.tasks:
            if task.output in ("units", "codes") and {"text", "prompt_units"} <= {*task.inputs}:
                return task.name
        raise ConfigError(
            "this model follows no prompt: no task of it reads {text} and {prompt_units}"
        )

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
            ConfigError: there is no unit decoder, or it hasn't heard the speaker.
        """
        decoder = self._speech_decoder("continue")
        _heard(decoder, speaker)
        predictor = self._predictor("continue")
        record = self._fields.record(self._row(recording, predictor.task.output))
        prefix = int(record[predictor.task.output].shape[-1])
        request = predictor.request(record, prefix=prefix)
        (found,) = _told([record["id"]], predictor.predict([request]))
        (sound,) = decoder.decode([found], speakers=[speaker])
        assert sound is not None
        return sound

    def _listen(
        self, task: str, recordings: Sequence[Recording], *, to: str | None = None
    ) -> list[Prediction]:
        field = "codes" if "codes" in self._predictor(task).task.inputs else "units"
        return self._predict(task, [self._row(one, field) for one in recordings], to=to)

    def _row(self, recording: Recording, field: str = "units") -> dict[str, Any]:
        if field == "codes":
            return self._coded(recording)
        if self._units is None:
            assert self.loaded.tokenizer is not None
            tokenizer = Tokenizer.load(self.loaded.tokenizer)
            self._units = tokenizer.open(device=self.loaded.device)
        name = _name(recording)
        waveform = None if is_path(recording) else audio.load(recording)
        _tell_if_faint(name, recording if waveform is None else waveform)
        units = self._units(Path(recording)) if waveform is None else self._units(waveform)
        return {"id": name, **timed_runs(units, self._units)}

    def _coded(self, recording: Recording) -> dict[str, Any]:
        if self._codec is None:
            self._codec = codec_of(self.loaded, self._decoder)
        name, rate = _name(recording), self._codec.sample_rate
        wave = audio.load(recording, rate=rate)
        _tell_if_faint(name, recording if is_path(recording) else audio.load(recording))
        try:
            return {"id": name, "codes": self._codec.encode(wave, rate)}
        except ValueError as error:
            raise CorpusError(f"{name}: {error}") from error

    def _predict(
        self, task: str, rows: Sequence[dict[str, Any]], *, to: str | None = None
    ) -> list[Prediction]:
        predictor = self._predictor(task)
        found = predict_all(predictor, [self._request(predictor, row, to=to) for row in rows])
        return _told([row["id"] for row in rows], found)

    def _request(
        self, predictor: Predictor[Any], row: Mapping[str, Any], *, to: str | None = None
    ) -> Any:
        record = self._fields.record(row)
        return predictor.request(record if to is None else {**record, "to": to})

    def _predictor(self, task: str, *, careful: bool = False) -> Predictor[Any]:
        """Return what does ``task``; ``careful`` takes the best of several, where it can tell."""
        key = (task, careful)
        if key not in self._predictors:
            self._predictors[key] = self.loaded.predictor(task, careful=careful)
        return self._predictors[key]

    def _speech_decoder(self, task: str) -> SpeechDecoder:
        (found,) = select(self.loaded.tasks, [task])
        speech = SPOKEN.get(found.output, "units")
        if speech not in self._speech_decoders:
            self._speech_decoders[speech] = SpeechDecoder(
                self.loaded, decoder=self._decoder, speech=speech
            )
        return self._speech_decoders[speech]


def open_model(
    path: Path | None,
    *,
    device: str = "auto",
    decoder: Path | None = None,
    precision: DecodingPrecision = "fp32",
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
    return load(path or DEFAULT_MODEL, device=device, decoder=decoder, precision=precision)


def _name(recording: Recording) -> str:
    return str(recording) if is_path(recording) else "samples"


def _heard(decoder: SpeechDecoder, speaker: str | None) -> str | None:
    """Return ``speaker``, whom the decoder alone has to know."""
    if speaker is not None and not decoder.speakers:
        raise ConfigError(f"speaker {speaker!r}: codes hold the voice, so it can't be chosen")
    decoder.require(speaker)
    return speaker


def _told(names: Sequence[str], found: Sequence[Prediction]) -> list[Prediction]:
    """Return predictions, with a warning for each that was cut off."""
    for name, one in zip(names, found, strict=True):
        if one.truncated:
            logger.warning("%s: cut off at the cap on the length of the output", name)
        if one.unrepaired:
            logger.warning(
                "%s: the model hears something else in it, and could not repair it", name
            )
    return list(found)


def _tell_if_faint(name: str, sound: Path | str | np.ndarray) -> None:
    """Warn of sound that no words can be made out of, whatever the model writes."""
    if isinstance(sound, np.ndarray):
        wide = sound.astype(np.float64)
        known = Statistics(num_samples=len(wide), mean=wide.mean(), variance=wide.var())
    else:
        known = statistics(Clip(path=Path(sound)))
    why = faintness(known)
    if why is not None:
        logger.warning("%s: %s; what is made of it is not to be relied on", name, why)


def _is_audio(source: str) -> bool:
    """Tell the name of an audio file from a text."""
    endings = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".sph", ".m4a"}
    return Path(source).suffix.lower() in endings
