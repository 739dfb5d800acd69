"""T2V2 doing one task: what `unitone.lm.predictor` asks of every family."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitone import config as configs
from unitone import seeding
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.fields import Fields, Record
from unitone.lm.family import LoadedModel
from unitone.lm.options import MAX_TOKENS
from unitone.lm.predictor import Prediction
from unitone.lm.t2v2 import beam, decoding, verification, words
from unitone.lm.t2v2.batch import Example, Rows, T2V2Batching, groups, rows_of
from unitone.lm.t2v2.decoding import Given, Synthesis
from unitone.lm.t2v2.editor import EDIT, Editor
from unitone.lm.t2v2.model import T2V2, frames, log_p
from unitone.lm.t2v2.objective import inputs_of
from unitone.lm.t2v2.options import DecodingConfig
from unitone.lm.t2v2.table import Kind, T2V2Task
from unitone.lm.t2v2.verification import Verified, Wanted
from unitone.lm.tasks import select
from unitone.tokenizers.passport import Passport

CANDIDATES = 4
"""A careful synthesis is the one of so many that the model itself recognizes best."""


@dataclass(frozen=True, kw_only=True)
class T2V2Request:
    """One utterance, ready to be predicted for."""

    id: str
    to: str | None
    given: Example
    durations: np.ndarray | None = None
    """Of the units, in frames of the encoder."""


def open_predictor(
    loaded: LoadedModel,
    task: str,
    *,
    config: DecodingConfig | None = None,
    seed: int = 0,
    careful: bool = False,
) -> "T2V2Predictor | Editor":
    """Return the predictor of a model directory.

    Args:
        loaded: the model.
        task: name of a row of its table; ``edit``, where it can synthesize.
        config: how to decode.
        seed: of what is drawn; each utterance draws from a stream of its own.
        careful: of several syntheses, take the one that the model itself recognizes best.

    Raises:
        ConfigError: the model has no such task.
    """
    known = [row.name for row in loaded.table]
    editing = task == EDIT.name and "tts" in known
    (row,) = select(loaded.table, ["tts" if editing else task])
    config = config or DecodingConfig(candidates=CANDIDATES if careful else 1)
    assert loaded.passport is not None or loaded.fields  # refuses a directory without tokenizer
    passport = loaded.passport
    made = T2V2Predictor(
        loaded.model, row, fields=loaded.fields, passport=passport, config=config, seed=seed
    )
    return made.editor() if editing else made


class T2V2Predictor:
    """Holds the model ready."""

    def __init__(
        self,
        model: T2V2,
        row: T2V2Task,
        *,
        fields: Fields,
        passport: Passport | None,
        config: DecodingConfig | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare; the passport says how units are stored and how long a frame is."""
        self.row, self.task = row, row.task
        self.config = _possible(config or DecodingConfig(), model)
        self._model, self._fields, self._seed = model, fields, seed
        self._scorer = _scorer(self.config, self._decode)
        deduplicated = passport is not None and passport.deduplicate
        self._deduplicated = deduplicated and fields.subwords is None
        self._frame_rate = None if passport is None else passport.frames.frame_rate
        shape = model.config
        self._batching = T2V2Batching(
            vocabulary=fields.vocabulary,
            tasks=(row,),
            upsample=shape.upsample,
            spread=shape.spread,
            longest=shape.context,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """How it decodes, as JSON values."""
        return configs.to_dict(self.config)

    def editor(self) -> Editor:
        """Return what edits with these settings."""
        return Editor(
            self._model,
            fields=self._fields,
            batching=self._batching,
            deduplicated=self._deduplicated,
            config=self.config,
            how=self._how,
            seed=self._seed,
        )

    def request(self, record: Record, *, prefix: int = 0) -> T2V2Request:
        """Return the request of a record; see `unitone.lm.predictor.Predictor`."""
        name = record["id"]
        if prefix:
            raise ConfigError("--prefix: this model makes all of an output at once; leave it out")
        for field in self.task.inputs:
            value = record.get(field)
            if value is None or (not isinstance(value, str) and not np.size(value)):
                raise CorpusError(f"{name}: has no {field}, which task {self.task.name} needs")
        kind: Kind = "mt" if "text" in self.task.inputs else "st"
        given = self._batching.given(record, kind)
        if kind == "mt" and "to" not in self.task.inputs:
            given = replace(given, units=given.units[:0])
        request = T2V2Request(
            id=name, to=record.get("to"), given=given, durations=record.get("durations")
        )
        if self._cost(request) > self._model.config.context:
            raise CorpusError(
                f"{name}: {self._cost(request)} frames, the model's context is "
                f"{self._model.config.context}"
            )
        return request

    def _cost(self, request: T2V2Request) -> int:
        """Return the frames; of synthesis, which are not known yet, the tokens."""
        given, shape = request.given, self._model.config
        spread = shape.spread if "to" in self.task.inputs else 1
        return len(given.units) or spread * len(given.text)

    def batches(self, requests: Sequence[T2V2Request], *, max_tokens: int) -> list[list[int]]:
        """Return the numbers of requests that go together."""
        costs = [self._cost(one) for one in requests]
        return groups(costs, max_tokens=max_tokens)

    @torch.inference_mode()
    def predict(
        self, requests: Sequence[T2V2Request], *, max_tokens: int = MAX_TOKENS
    ) -> list[Prediction]:
        """Return the predictions of one batch."""
        if not requests:
            return []
        device = next(self._model.parameters()).device
        rows = _moved(rows_of([one.given for one in requests]), device)
        if self.task.output in ("text", "translation"):
            return [one for one, _ in self._written(rows)]
        if self.task.output == "units":
            return self._spoken(requests, rows, max_tokens)
        return self._told_apart(rows)

    @torch.inference_mode()
    def timed(self, requests: Sequence[T2V2Request]) -> list[Prediction]:
        """Return predictions with words, see `unitone.lm.predictor.TimesWords`."""
        if self.task.output != "text" or self._frame_rate is None:
            raise ConfigError(f"task {self.task.name} reads no text off speech of known times")
        if self.config.beam > 1:
            raise ConfigError("words have times on the likeliest path only: leave --beam out")
        if not requests:
            return []
        begins = []
        for one in requests:
            if one.durations is None:
                raise CorpusError(f"{one.id}: has no durations of its units, so no times")
            begins.append(
                words.times(
                    one.durations,
                    upsample=self._model.config.upsample,
                    frame_rate=self._frame_rate,
                )
            )
        device = next(self._model.parameters()).device
        rows = _moved(rows_of([one.given for one in requests]), device)
        made = []
        for (found, read), begin in zip(self._written(rows), begins, strict=True):
            assert read is not None
            classes, confidence = (part.numpy() for part in read)
            timed = words.timed(classes, confidence, self._decode, begin)
            made.append(replace(found, words=timed))
        return made

    def _decode(self, ids: list[int]) -> str:
        return self._fields.text.decode(ids)

    def _written(self, rows: Rows) -> list[tuple[Prediction, tuple[Tensor, Tensor] | None]]:
        """Return the texts, with the classes of the frames and their probabilities, or None."""
        name = "mt" if "text" in self.task.inputs else "st"
        given, lengths = inputs_of(name, rows, self._model.config.spread)
        if "to" in self.task.inputs:
            given["to"] = rows.to
        valid = frames(lengths)
        if self.config.beam > 1:
            return [(one, None) for one in self._searched(valid, given, lengths)]
        draft = decoding.recognize(
            self._model, valid, given, threshold=self.config.threshold, rounds=self.config.rounds
        )
        made: list[tuple[Prediction, tuple[Tensor, Tensor] | None]] = []
        for row, length in enumerate(lengths.tolist()):
            read = draft.classes[row, :length].cpu(), draft.confidence[row, :length].cpu()
            ids = decoding.collapsed(read[0].numpy())
            score = float(read[1].clamp(min=1e-9).log().sum()) / max(len(ids), 1)
            made.append((Prediction(text=self._decode(ids), score=score), read))
        return made

    def _searched(self, valid: Tensor, given: Given, lengths: Tensor) -> list[Prediction]:
        """Return the texts that beam search finds; scores are a token's."""
        heard = log_p(self._model.ctc(self._model(valid, **given))).cpu().numpy()
        made = []
        for row, length in enumerate(lengths.tolist()):
            found = beam.search(heard[row, :length], beam=self.config.beam, scorer=self._scorer)
            ids, score = found[0]
            made.append(Prediction(text=self._decode(ids), score=score / max(len(ids), 1)))
        return made

    def _told_apart(self, rows: Rows) -> list[Prediction]:
        field = self.task.output
        valid = frames(rows.frames)
        logits = self._model.pooled(self._model(valid, units=rows.units), valid, field)
        scores, classes = log_p(logits).max(dim=-1)
        labels = self._fields.vocabulary.block(field).labels
        return [
            Prediction(label=labels[number], score=score)
            for number, score in zip(classes.tolist(), scores.tolist(), strict=True)
        ]

    def _spoken(
        self, requests: Sequence[T2V2Request], rows: Rows, max_tokens: int
    ) -> list[Prediction]:
        voice = {"language": rows.language, "speaker": rows.speaker}
        scale = self.config.length_scale
        durations = decoding.lengths(self._model, rows.text, rows.tokens, voice, scale=scale)
        durations, truncated = self._capped(durations)
        total = durations.sum(dim=1).tolist()
        each = self.config.candidates * (2 if self.config.guidance else 1)
        made: dict[int, Prediction] = {}
        for group in groups([one * each for one in total], max_tokens=max_tokens):
            index = torch.tensor(group, device=durations.device)
            text, tokens = rows.text[index], rows.tokens[index]
            some = {name: ids[index] for name, ids in voice.items()}
            found = self._candidates(
                [requests[one] for one in group], text, tokens, durations[index], some
            )
            for number, (units, score) in zip(group, found, strict=True):
                unrepaired = None
                if self.config.verify:
                    alone = {name: ids[number : number + 1] for name, ids in voice.items()}
                    wanted = self._wanted(rows, durations, number)
                    checked = self._verified(requests[number], units, wanted, alone)
                    units, unrepaired = checked.units, bool(checked.wrong)
                block = self._fields.vocabulary.block("unit")
                made[number] = Prediction(
                    units=self._fields.units_of(block.encode(self._shortened(units))),
                    score=score,
                    truncated=truncated[number],
                    unrepaired=unrepaired,
                )
        return [made[number] for number in range(len(requests))]

    @property
    def _how(self) -> Synthesis:
        config = self.config
        return Synthesis(
            passes=config.passes,
            guidance=config.guidance,
            twin=config.twin,
            temperature=config.temperature,
        )

    def verified(self, requests: Sequence[T2V2Request]) -> list[Prediction]:
        """Return predictions of verified speech, see `unitone.lm.predictor.VerifiesSpeech`.

        Raises:
            ConfigError: the task makes no speech.
        """
        if self.task.output != "units":
            raise ConfigError(f"task {self.task.name} makes no speech to verify")
        own = copy.copy(self)
        own.config = replace(self.config, verify=True)
        return own.predict(requests)

    def _wanted(self, rows: Rows, durations: Tensor, number: int) -> Wanted:
        count = int(rows.tokens[number])
        text = rows.text[number, :count]
        cuts = words.edges(text.tolist(), self._decode)
        return Wanted(text=text, durations=durations[number, :count], cuts=cuts)

    def _verified(
        self, request: T2V2Request, units: list[int], wanted: Wanted, voice: Given
    ) -> Verified:
        return verification.verified(
            self._model,
            torch.tensor(units, device=wanted.text.device),
            wanted,
            voice,
            how=self._how,
            generator=seeding.stream(self._seed, "verify", self.row.name, request.id),
            rounds=self.config.repairs,
        )

    def _capped(self, durations: Tensor) -> tuple[Tensor, list[bool]]:
        """Cut what is longer than the context off."""
        context = self._model.config.context // self._model.config.upsample
        ends = durations.cumsum(dim=1)
        most = context * self._model.config.upsample
        capped = ends.clamp(max=most).diff(dim=1, prepend=ends.new_zeros(len(ends), 1))
        return capped, (ends[:, -1] > most).tolist()

    def _candidates(
        self,
        requests: Sequence[T2V2Request],
        text: Tensor,
        tokens: Tensor,
        durations: Tensor,
        voice: Given,
    ) -> list[tuple[list[int], float]]:
        """Return the units of each request, and how well the model recognizes the text in them."""
        config, up = self.config, self._model.config.upsample
        spread, total = decoding.spread(text, durations)
        count = total // up
        best: list[tuple[list[int], float]] = []
        for number in range(config.candidates):
            generators = [
                seeding.stream(self._seed, "decode", self.row.name, one.id, number)
                for one in requests
            ]
            masked = spread.new_full((len(count), int(count.max())), self._model.mask_unit)
            units = decoding.fill(
                self._model, masked, spread, count, voice, how=self._how, generators=generators
            )
            scores = decoding.read_back(self._model, units, count, text, tokens).tolist()
            found = [
                (row[:length], score)
                for row, length, score in zip(units.tolist(), count.tolist(), scores, strict=True)
            ]
            best = (
                [max(pair, key=lambda one: one[1]) for pair in zip(best, found, strict=True)]
                if best
                else found
            )
        return best

    def _shortened(self, units: list[int]) -> list[int]:
        if not self._deduplicated:
            return units
        return [one for place, one in enumerate(units) if place == 0 or units[place - 1] != one]


def _scorer(config: DecodingConfig, decode: words.Decode) -> beam.WordScorer:
    """Return what beam search adds to texts for their words; errors as of the files it reads."""
    return beam.WordScorer(
        decode,
        ngrams=None if config.ngrams is None else beam.Ngrams(config.ngrams),
        weight=config.ngram_weight,
        bonus=config.word_bonus,
        lexicon=None if config.lexicon is None else beam.read_lexicon(config.lexicon),
    )


def _possible(config: DecodingConfig, model: T2V2) -> DecodingConfig:
    """Return the settings without what the model hasn't learnt."""
    if not model.config.correction:
        config = replace(config, rounds=0)
    return config if model.config.speech else replace(config, guidance=0.0)


def _moved(rows: Rows, device: torch.device) -> Rows:
    return Rows(**{name: value.to(device) for name, value in vars(rows).items()})
