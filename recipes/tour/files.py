"""What the tour's steps left in its folder; a part that is not there is an error that names it."""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from unitone import files
from unitone.errors import CorpusError
from unitone.lm import family
from unitone.lm.family import LoadedModel
from unitone.resume import Journal
from unitone.tokenizers.shards import TokenShards

Row = dict[str, Any]


class TourFiles:
    """The folder, read as it is asked for.

    Everything here raises `CorpusError` where a step has not run, and `CheckpointError` where a
    file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def json(self, *names: str) -> Any:
        """Return the content of a JSON file."""
        return files.read_json(self._there(*names))

    def lines(self, *names: str) -> list[Row]:
        """Return the objects of a file of JSON lines."""
        path = self._there(*names)
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise CorpusError(f"{self._named(path)} is damaged ({error})") from error

    def metrics(self, run: str) -> list[Row]:
        """Return what a training run has written down."""
        records = Journal(self._there(run, "metrics.jsonl")).records()
        if not records:
            raise CorpusError(f"{run}/metrics.jsonl is empty")
        return records

    @cached_property
    def manifest(self) -> dict[str, Row]:
        """The corpus by id."""
        return {row["id"]: row for row in self.lines("corpus", "manifest.jsonl")}

    def hypotheses(self, task: str) -> list[Row]:
        """Return what was decoded, each with its row of the corpus under ``reference``.

        ``task`` is ``t2v2/asr`` for what the non-autoregressive model has decoded.
        """
        found = self.lines("hyp", f"{task}.jsonl")
        unknown = [one["id"] for one in found if one["id"] not in self.manifest]
        if unknown:
            raise CorpusError(f"hyp/{task}.jsonl: {unknown[0]} is not in the corpus")
        return [one | {"reference": self.manifest[one["id"]]} for one in found]

    def tokens(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return rows of the shards by id."""
        wanted = set(ids)
        return {row["id"]: row for row in self.shards.rows() if row["id"] in wanted}

    @cached_property
    def shards(self) -> TokenShards:
        """The token shards."""
        self._there("tokens", "tokens.json")
        return TokenShards(self.folder / "tokens")

    @cached_property
    def model(self) -> LoadedModel:
        """The language model."""
        self._there("lm", "best", "config.json")
        return family.load(self.folder / "lm" / "best", device="cpu")

    def recording(self, row: Row) -> Path:
        """Return the file of an utterance of the corpus."""
        return self._there("corpus", row["audio"])

    def sound_of(self, task: str, hypothesis: Row) -> Path:
        """Return the file of a hypothesis, whose name is relative to the hypotheses' file."""
        if not hypothesis.get("audio"):
            raise CorpusError(f"hyp/{task}.jsonl: {hypothesis['id']} has no sound")
        return (self.folder / "hyp" / task).parent / str(hypothesis["audio"])

    def _there(self, *names: str) -> Path:
        path = self.folder.joinpath(*names)
        if not path.is_file():
            raise CorpusError(f"{self._named(path)} is not there")
        return path

    def _named(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
