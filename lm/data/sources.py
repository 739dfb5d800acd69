"""The utterances to decode, from token shards or from recordings, each as the same kind of row."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from unitone import files, seeding
from unitone.codecs.codec import Codec, codes_of
from unitone.codecs.options import LONGEST
from unitone.corpus import speaker_embeddings
from unitone.corpus.audio import SAMPLE_RATE, Statistics, faintness
from unitone.corpus.corpus import Corpus, read_corpus
from unitone.corpus.utterance import Skipped, Utterance
from unitone.corpus.waveforms import LoadedWaveform, load, load_ahead
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.speaker_prompts import SpeakerPrompts
from unitone.lm.data.splits import splitter
from unitone.lm.data.waveforms import codec_of
from unitone.lm.family import LoadedModel
from unitone.lm.options import SourceConfig
from unitone.lm.tasks import SPEECH
from unitone.tokenizers.extract import Features, extract
from unitone.tokenizers.kmeans.units import deduplicate
from unitone.tokenizers.passport import require_same
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer, UnitExtractor

WHOLE = 60 * SAMPLE_RATE
"""Samples up to which a recording is looked at in one piece."""


class Source:
    """Numbered utterances; what has no recording or can't be read is a reason instead of a row."""

    def __init__(
        self,
        config: SourceConfig,
        loaded: LoadedModel,
        *,
        needs: frozenset[str],
        decoder: Path | None = None,
    ) -> None:
        """Open the corpus.

        Args:
            config: where it is.
            loaded: the model.
            needs: the fields that prompts are made of.
            decoder: directory of the codec that codes of recordings come from, if not the model's.

        Raises:
            ConfigError: not exactly one corpus is given, it isn't there, it has no such split, or
                its tokenizer or codec is another; speaker embeddings are missing or unfit.
            CorpusError: it holds no utterance.
            CheckpointError: the file of speaker embeddings can't be read.
        """
        if (config.tokens is None) == (config.manifest is None):
            raise ConfigError("give the corpus: either --tokens or --manifest")
        if config.split_by is not None and config.tokens is None:
            raise ConfigError("--split-by is of shards; give --tokens")
        if config.limit is not None and config.limit < 1:
            raise ConfigError(f"--limit must be 1 or more, got {config.limit}")
        self._config, self._loaded, self._needs = config, loaded, needs
        self.faint: dict[str, str] = {}  # recordings that no words can be made out of, and why
        labels = {"speaker": config.speaker, "language": config.language}
        self._instead = {name: label for name, label in labels.items() if label is not None}
        for name in self._instead.keys() & needs:
            loaded.require(name, self._instead[name])
        self._embeddings = _embeddings(config.speaker_embeddings, loaded, needed="voice" in needs)
        self._shards: TokenShards | None = None
        self._prompts: SpeakerPrompts | None = None
        self._corpus: Corpus | None = None
        self._units: UnitExtractor | None = None
        self._decoder = decoder
        self._codec: Codec | None = None
        self._ids: dict[int, str] = {}
        self._source = ""
        if config.tokens is not None:
            self._open_shards(config.tokens)
        else:
            assert config.manifest is not None
            self._open_manifest(config.manifest)
        if not self._ids:
            raise CorpusError(f"{config.tokens or config.manifest}: no utterance in it")
        self._numbers = sorted(self._ids)[: config.limit]
        key = f"{self._source} {config.split} {config.limit}"
        if config.split_by is not None:
            key += f" by {config.split_by}"
        if self._instead:
            key += f" {sorted(self._instead.items())}"
        if config.speaker_embeddings is not None:
            key += f" {files.sha256(config.speaker_embeddings)}"
        self.identity = hashlib.sha256(key.encode()).hexdigest()
        """Of the corpus and what of it is asked for."""

    def _open_shards(self, folder: Path) -> None:
        if "features" in self._needs:
            raise ConfigError("--tokens: shards hold no features; give --manifest")
        shards = TokenShards(folder, passport=self._loaded.passport)
        if "codes" in self._needs:
            require_codes(shards, self._loaded, what=str(folder))
        split, split_of = self._config.split, splitter(shards, self._config.split_by)
        splits: set[str] = set()
        speakers: dict[str | None, int] = {None: -1}
        owners, sizes = np.full(len(shards), -1), np.zeros(len(shards), int)
        for number, row in enumerate(shards.rows()):
            mine = split_of(row)
            splits.add(mine or "")
            owners[number] = speakers.setdefault(row["speaker"], len(speakers))
            sizes[number] = len(row["units"])
            if split is None or mine == split:
                self._ids[number] = row["id"]
        if split is not None and len(shards) and not self._ids:
            found = ", ".join(sorted(splits - {""})) or "none"
            raise ConfigError(f"--split {split}: no utterance of {folder} has it; found {found}")
        self._shards = shards
        if "prompt_units" in self._needs:
            self._prompts = SpeakerPrompts(owners, sizes)
        self._source = f"{shards.index['manifest_sha256']} {shards.passport.hash}"

    def _open_manifest(self, manifest: Path) -> None:
        if "prompt_units" in self._needs:
            raise ConfigError("--manifest: speaker prompts come from shards; give --tokens")
        if "codes" in self._needs and self._needs & {*SPEECH} > {"codes"}:
            raise ConfigError(
                "--manifest: codes and units of a recording at once come from shards; give --tokens"
            )
        corpus = read_corpus(manifest).only(self._config.split)
        self._corpus, self._source = corpus, corpus.sha256
        self._ids = {
            number: entry.id or f"line {entry.line}" for number, entry in enumerate(corpus.entries)
        }

    def __len__(self) -> int:
        return len(self._numbers)

    def id(self, number: int) -> str:
        """Return the name of an utterance."""
        return self._ids[self._numbers[number]]

    def read(self, numbers: Sequence[int]) -> Iterator[dict[str, Any] | str]:
        """Yield the rows, or why there is none."""
        inside = [self._numbers[number] for number in numbers]
        for row in self._stored(inside) if self._shards is not None else self._recorded(inside):
            row = row if isinstance(row, str) else row | self._instead
            if self._embeddings is None or isinstance(row, str):
                yield row
            else:
                name = speaker_embeddings.find(
                    self._embeddings, id=row["id"], speaker=row["speaker"]
                )
                yield row | {"voice": None if name is None else self._embeddings[name]}

    def _stored(self, inside: Sequence[int]) -> Iterator[dict[str, Any] | str]:
        assert self._shards is not None
        prompts = self._drawn(inside)
        for number in inside:
            row = self._shards[number]
            self._look_at_row(row)
            yield row | {"prompt_units": prompts[number]} if number in prompts else row

    def _drawn(self, inside: Sequence[int]) -> dict[int, Int32[np.ndarray, "S"]]:
        """Return the units of another utterance of each one's speaker, of any split.

        The draw is by id alone: the same prompt for every model, seed and ``limit``.
        """
        if self._prompts is None:
            return {}
        assert self._shards is not None
        drawn = {
            number: self._prompts.draw(number, seeding.stream(0, "sample", self._ids[number]))
            for number in inside
            if self._prompts.longest[number]
        }
        units = {  # in their order on disk, so that no group of rows is read twice
            other: np.asarray(self._shards[other]["units"], np.int32)
            for other in sorted({*drawn.values()})
        }
        return {number: units[other] for number, other in drawn.items()}

    def _recorded(self, inside: Sequence[int]) -> Iterator[dict[str, Any] | str]:
        assert self._corpus is not None
        entries = [self._corpus.entries[number] for number in inside]
        speech = self._speech([one for one in entries if isinstance(one, Utterance)])
        for entry in entries:
            if isinstance(entry, Skipped):
                yield f"line {entry.line}: {entry.reason}"
                continue
            made = speech.get(entry.id, {})
            yield made if isinstance(made, str) else _row(entry) | made

    def _speech(self, utterances: list[Utterance]) -> dict[str, dict[str, Any] | str]:
        """Return what is made of the recordings, by id; a reason where that can't be."""
        if not self._needs & {*SPEECH}:
            return {}
        if "codes" in self._needs:
            return self._codes_of(utterances)
        units = self._open_encoder()
        found: dict[str, dict[str, Any] | str] = {}
        items = extract(
            units.extractor, utterances, workers=self._config.workers, batch_seconds=0.0
        )
        for utterance, item in zip(utterances, items, strict=True):
            self._look_at(load(utterance, longest=WHOLE))
            try:
                found[utterance.id] = self._made_of(item, units)
            except CorpusError as error:  # in the middle of a long recording
                found[utterance.id] = str(error)
        return found

    def _codes_of(self, utterances: list[Utterance]) -> dict[str, dict[str, Any] | str]:
        if self._codec is None:
            self._codec = codec_of(self._loaded, self._decoder)
        loaded = load_ahead(
            utterances,
            longest=round(LONGEST * self._codec.sample_rate),
            workers=self._config.workers,
            rate=self._codec.sample_rate,
        )
        found: dict[str, dict[str, Any] | str] = {}
        for one in loaded:
            self._look_at(one, rate=self._codec.sample_rate)
            try:
                found[one.utterance.id] = {"codes": codes_of(self._codec, one)}
            except ValueError as error:
                found[one.utterance.id] = str(error)
        return found

    def _look_at(self, one: LoadedWaveform, *, rate: int = SAMPLE_RATE) -> None:
        """Note why no words can be made out of a recording, if so."""
        known = one.statistics
        if one.waveform is not None:
            wide = one.waveform.astype(np.float64)
            samples = round(len(wide) * SAMPLE_RATE / rate)
            known = Statistics(num_samples=samples, mean=wide.mean(), variance=wide.var())
        why = None if known is None else faintness(known)
        if why is not None:
            self.faint[one.utterance.id] = why

    def _look_at_row(self, row: dict[str, Any]) -> None:
        """The same of a row of shards, which know how long a recording is, and not how loud."""
        if self._needs & {*SPEECH}:
            known = Statistics(num_samples=row["num_samples"], mean=0.0, variance=1.0)
            why = faintness(known)
            if why is not None:
                self.faint[row["id"]] = why

    def _made_of(self, item: Features | Skipped, units: UnitExtractor) -> dict[str, Any] | str:
        if isinstance(item, Skipped):
            return item.reason
        if "features" in self._needs:
            return {"features": item.whole().cpu().numpy().astype(np.float32)}
        return timed_runs(units.of(item), units)

    def _open_encoder(self) -> UnitExtractor:
        if self._units is None:
            assert self._loaded.tokenizer is not None
            tokenizer = Tokenizer.load(self._loaded.tokenizer)
            self._units = tokenizer.open(ssl=self._config.ssl, device=self._loaded.device)
        return self._units


def require_codes(shards: TokenShards, loaded: LoadedModel, *, what: str) -> None:
    """Refuse shards without codes, of another codec than the model's, or with fewer levels."""
    ours, theirs = loaded.codes, shards.require_codes()
    assert ours is not None
    require_same(ours.codec, theirs.codec, what=what)
    if theirs.levels < ours.levels:
        raise ConfigError(f"{what} has {theirs.levels} levels of codes, the model {ours.levels}")


def _embeddings(
    path: Path | None, loaded: LoadedModel, *, needed: bool
) -> dict[str, Float32[np.ndarray, "E"]] | None:
    """Return the speaker embeddings, which must be of the model's width."""
    if path is None:
        if needed:
            raise ConfigError(
                "this task reads {voice}: give speaker embeddings with --speaker-embeddings"
            )
        return None
    if not needed:
        raise ConfigError("--speaker-embeddings: this task reads no {voice}")
    found = speaker_embeddings.read(path, option="--speaker-embeddings")
    width = len(next(iter(found.values())))
    taken = loaded.model.config.voice
    if width != taken:
        raise ConfigError(
            f"--speaker-embeddings {path}: vectors of {width} numbers, the model takes {taken}"
        )
    return found


def timed_runs(units: np.ndarray, extractor: UnitExtractor) -> dict[str, np.ndarray]:
    """Return units as the model was trained on them, deduplicated or not, and their durations."""
    if not extractor.passport.deduplicate:
        return {"units": units, "durations": np.ones_like(units)}
    kept, durations = deduplicate(units)
    return {"units": kept, "durations": durations}


def _row(utterance: Utterance) -> dict[str, Any]:
    names = ("id", "text", "language", "speaker", "gender", "translation")
    return {name: getattr(utterance, name) for name in names}
