"""The utterances to decode, from token shards or from recordings, each as the same kind of row."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitone.errors import ConfigError, CorpusError
from unitone.lm.model_dir import Loaded
from unitone.tokenizers.corpus import Corpus, read_corpus
from unitone.tokenizers.extract import Features, extract
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer, UnitExtractor
from unitone.tokenizers.units import deduplicate
from unitone.tokenizers.utterance import Skipped, Utterance

SPEECH = frozenset({"units", "features"})
"""Fields that are made from a recording."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    tokens: Path | None = None
    """Token shards of the model's tokenizer."""
    manifest: Path | None = None
    """Instead: Lhotse cuts, plain or NeMo JSON lines, or a fairseq TSV."""
    split: str | None = None
    """Only the utterances of this split."""
    limit: int | None = None
    """Only the first so many."""
    ssl: str | None = None
    """The speech encoder, where it lies elsewhere than when the tokenizer was built."""
    workers: int = 2
    """Threads that decode audio."""


class Rows:
    """Numbered utterances; what lacks a recording or can't be read is a reason instead of a row."""

    def __init__(self, config: SourceConfig, loaded: Loaded, *, needs: frozenset[str]) -> None:
        """Open the corpus; ``needs`` are the fields that prompts are made of.

        Raises:
            ConfigError: not exactly one corpus is given, it isn't there, it has no such split, or
                its tokenizer isn't the model's.
            CorpusError: it holds no utterance.
        """
        if (config.tokens is None) == (config.manifest is None):
            raise ConfigError("give the corpus: either --tokens or --manifest")
        if config.limit is not None and config.limit < 1:
            raise ConfigError(f"--limit must be 1 or more, got {config.limit}")
        self._config, self._loaded, self._needs = config, loaded, needs
        self._shards: TokenShards | None = None
        self._corpus: Corpus | None = None
        self._units: UnitExtractor | None = None
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
        self.identity = hashlib.sha256(key.encode()).hexdigest()
        """Of the corpus and what of it is asked for."""

    def _open_shards(self, folder: Path) -> None:
        if "features" in self._needs:
            raise ConfigError("--tokens: shards hold no features; give --manifest")
        shards = TokenShards(folder, passport=self._loaded.passport)
        split = self._config.split
        splits: set[str] = set()
        for number, row in enumerate(shards.rows()):
            splits.add(row["split"] or "")
            if split is None or row["split"] == split:
                self._ids[number] = row["id"]
        if split is not None and len(shards) and not self._ids:
            found = ", ".join(sorted(splits - {""})) or "none"
            raise ConfigError(f"--split {split}: no utterance of {folder} has it; found {found}")
        self._shards = shards
        self._source = f"{shards.index['manifest_sha256']} {shards.passport.hash}"

    def _open_manifest(self, manifest: Path) -> None:
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
        if self._shards is not None:
            yield from (self._shards[number] for number in inside)
            return
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
        if not self._needs & SPEECH:
            return {}
        units = self._open_encoder()
        found: dict[str, dict[str, Any] | str] = {}
        items = extract(
            units.extractor, utterances, workers=self._config.workers, batch_seconds=0.0
        )
        for utterance, item in zip(utterances, items, strict=True):
            try:
                found[utterance.id] = self._made_of(item, units)
            except CorpusError as error:  # in the middle of a long recording
                found[utterance.id] = str(error)
        return found

    def _made_of(self, item: Features | Skipped, units: UnitExtractor) -> dict[str, Any] | str:
        if isinstance(item, Skipped):
            return item.reason
        if "features" in self._needs:
            return {"features": item.whole().cpu().numpy().astype(np.float32)}
        return {"units": runs(units.of(item), units)}

    def _open_encoder(self) -> UnitExtractor:
        if self._units is None:
            assert self._loaded.tokenizer is not None
            tokenizer = Tokenizer.load(self._loaded.tokenizer)
            device = str(next(self._loaded.model.parameters()).device)
            self._units = tokenizer.open(ssl=self._config.ssl, device=device)
        return self._units


def runs(units: np.ndarray, extractor: UnitExtractor) -> np.ndarray:
    """Return units as the model was trained on them, deduplicated or not."""
    return deduplicate(units)[0] if extractor.passport.deduplicate else units


def _row(utterance: Utterance) -> dict[str, Any]:
    names = ("id", "text", "language", "speaker", "gender", "translation")
    return {name: getattr(utterance, name) for name in names}
