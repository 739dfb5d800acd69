"""The fields of an utterance as token ids, and ids as fields again; every model family uses it.

What a shard or a manifest says of an utterance (a row) becomes a record: text, units and codes as
tokens of the vocabulary, labels and vectors as they are. How a record becomes the sequence of a
model is the family's.

Axes: L positions, Q levels of a codec, T frames.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.options import Pattern
from unitone.lm.tasks import CLASSES
from unitone.tokenizers.passport import CodecPassport, Passport
from unitone.tokenizers.text.subwords import UnitSubwords
from unitone.tokenizers.text.text import TextTokenizer, load_text

Record = Mapping[str, Any]
"""The fields of an utterance as tokens, labels and vectors; `Fields.record` makes it."""

"""How the levels of codes lie in a sequence: side by side, each a step later, or in turn."""


@dataclass(frozen=True, kw_only=True)
class CodesOfModel:
    """What the codes of a model are."""

    codec: CodecPassport
    levels: int
    """The first so many of the codec's."""
    pattern: Pattern


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a training has seen; None where that is not known."""

    text: tuple[int, ...] | None = None
    """First and last of every run of consecutive text ids."""
    speakers: tuple[str, ...] | None = None
    characters: str | None = None
    """Of the texts, sorted: ids may be bytes, of which another character has none that is new."""

    def __post_init__(self) -> None:
        if len(self.text or ()) % 2:
            raise ConfigError(f"runs of text ids must be pairs, got {self.text}")

    @classmethod
    def of(
        cls, text: Iterable[int], speakers: Iterable[str], characters: Iterable[str] | None = None
    ) -> "Learnt":
        """Return what these text ids, speakers and characters are.

        >>> Learnt.of({7, 1, 2, 3}, ["bob", "ann"])
        Learnt(text=(1, 3, 7, 7), speakers=('ann', 'bob'), characters=None)
        """
        edges: list[int] = []
        for one in sorted(text):
            if edges and one == edges[-1] + 1:
                edges[-1] = one
            else:
                edges += [one, one]
        return cls(
            text=tuple(edges),
            speakers=tuple(sorted(speakers)),
            characters=None if characters is None else "".join(sorted({*characters})),
        )

    def ids(self) -> frozenset[int] | None:
        """Return the text ids."""
        if self.text is None:
            return None
        runs = zip(self.text[::2], [last + 1 for last in self.text[1::2]], strict=True)
        return frozenset(one for run in runs for one in range(*run))

    def after(self, before: "Learnt") -> "Learnt":
        """Return what is known with what was ``before``; a part that was not known stays so."""
        both = self.of(
            (self.ids() or frozenset()) | (before.ids() or frozenset()),
            {*(self.speakers or ()), *(before.speakers or ())},
            (self.characters or "") + (before.characters or ""),
        )
        return Learnt(
            text=None if before.text is None else both.text,
            speakers=None if before.speakers is None else both.speakers,
            characters=None if before.characters is None else both.characters,
        )


UNKNOWN, NOTHING = Learnt(), Learnt(text=(), speakers=(), characters="")
"""Of models that don't say; of a model before its training."""


class Fields:
    """Turns rows into records, and tokens into what they stand for, over one vocabulary."""

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        text: TextTokenizer,
        subwords: UnitSubwords | None,
        learnt: Learnt = UNKNOWN,
    ) -> None:
        """Check that vocabulary and tokenizers belong together; no ``subwords``: units as they are.

        ``learnt`` is what training has seen.

        Raises:
            ConfigError: the vocabulary has another number of text or unit tokens.
        """
        for name, size in (("text", text.size), ("unit", subwords and subwords.num_subwords)):
            block = vocabulary.block(name)
            if size is not None and block.size not in (0, size):
                raise ConfigError(
                    f"the vocabulary has {block.size} {name} tokens, the tokenizer {size}: use the "
                    "tokenizer directory that lies beside the model"
                )
        self.vocabulary, self.text, self.subwords = vocabulary, text, subwords
        self._learnt = learnt.ids()
        self._characters = None if learnt.characters is None else frozenset(learnt.characters)

    @classmethod
    def open(
        cls,
        tokenizer: Path | str,
        vocabulary: Vocabulary,
        *,
        learnt: Learnt = UNKNOWN,
    ) -> "Fields":
        """Read the text and unit models of a tokenizer directory.

        Raises:
            ConfigError: the vocabulary belongs to another tokenizer.
            CheckpointError: a model is missing or damaged.
        """
        tokenizer = Path(tokenizer)
        passport = Passport.load(tokenizer)
        if vocabulary.passport is not None:
            vocabulary.require_passport(passport.hash, of=str(tokenizer))
        text = load_text(passport.text.kind, tokenizer)
        subwords = UnitSubwords.load(tokenizer / "units.model") if passport.unit_pieces else None
        return cls(vocabulary=vocabulary, text=text, subwords=subwords, learnt=learnt)

    def record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a row; what the row has not, the record has not.

        Raises:
            CorpusError: text, units or codes are not of this vocabulary; the utterance is named.
        """
        record: dict[str, Any] = {"id": row["id"]}
        try:
            for name in ("units", "prompt_units"):
                if row.get(name) is not None:
                    record[name] = self.unit_tokens(np.asarray(row[name], np.int32))
            if row.get("units") is not None and row.get("durations") is not None:
                lasting = np.asarray(row["durations"], np.int32)
                record["durations"] = self._lasting(record["units"], lasting)
            if (row.get("text") or "").strip():  # of blanks, nothing can be made
                record["text"] = self.text_tokens(row["text"])
            if (row.get("edited") or "").strip():
                record["edited"] = self.text_tokens(row["edited"])
            if row.get("codes") is not None and self.vocabulary.codes:
                record["codes"] = self.code_tokens(np.asarray(row["codes"]))
            record["translations"] = {
                language: self.text_tokens(text)
                for language, text in _translations(row.get("translation")).items()
            }
        except ValueError as error:
            raise CorpusError(f"{row['id']}: {error}") from error
        for name in ("language", "gender", "speaker"):
            if row.get(name) is not None:
                record[name] = row[name]
        for name in ("features", "voice"):
            if row.get(name) is not None:
                record[name] = np.asarray(row[name])
        return record

    def text_tokens(self, text: str) -> Int32[np.ndarray, "L"]:
        """Return the tokens of ``text``."""
        ids = np.asarray(self.text.encode(text), np.int32)
        return self.vocabulary.block("text").encode(ids)

    def unlearnt(self, text: str) -> list[str]:
        """Return the characters, or the subwords, of ``text`` that training never saw.

        Raises:
            CorpusError: they are half of it or more, so that nothing can come of it.
        """
        ids = self.text.encode(text)
        missing = set() if self._learnt is None else {*ids} - self._learnt
        strange = set() if self._characters is None else {*text} - self._characters
        if not missing and not strange:
            return []
        found = [
            one
            for one in dict.fromkeys(text)
            if one in strange or missing & {*self.text.encode(one)}
        ]
        found = found or [self.text.decode([one]) for one in sorted(missing)]
        shares = (
            sum(one in missing for one in ids) / len(ids),
            sum(one in strange for one in text) / len(text),
        )
        if max(shares) >= 0.5:
            raise CorpusError(f"{unlearnt_message(found)}: write it as the corpus does")
        return found

    def unit_tokens(self, units: Int[np.ndarray, "T"]) -> Int32[np.ndarray, "L"]:
        """Return the tokens of units, deduplicated or not as the tokenizer has made them."""
        ids = units.astype(np.int32) if self.subwords is None else self.subwords.encode(units)
        return self.vocabulary.block("unit").encode(ids)

    def _lasting(
        self, tokens: Int32[np.ndarray, "L"], durations: Int[np.ndarray, "T"]
    ) -> Int[np.ndarray, "L"]:
        """Return the frames of each unit token; those of a subword are its units' together."""
        sizes = [1] * len(tokens)
        if self.subwords is not None:
            sizes = [len(self.units_of([int(token)])) for token in tokens]
        if sum(sizes) != len(durations):
            raise ValueError(f"{sum(sizes)} units have {len(durations)} durations; one each")
        ends = np.cumsum([0, *durations])
        return np.diff(ends[np.cumsum([0, *sizes])])

    def code_tokens(self, codes: Int[np.ndarray, "R T"]) -> Int32[np.ndarray, "Q T"]:
        """Return the tokens of the first Q levels of codes.

        Raises:
            ValueError: there are fewer levels, or a code is outside its codebook.
        """
        blocks = self.vocabulary.codes
        if codes.ndim != 2 or len(codes) < len(blocks):
            raise ValueError(
                f"codes of shape {codes.shape}, the vocabulary has {len(blocks)} levels"
            )
        rows = zip(blocks, codes.astype(np.int32), strict=False)
        return np.stack([block.encode(row) for block, row in rows])

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of text tokens; others among them are dropped."""
        return self.text.decode(self.vocabulary.block("text").decode(self._of("text", tokens)))

    def units_of(self, tokens: Sequence[int]) -> Int32[np.ndarray, "T"]:
        """Return the units of unit tokens; others among them are dropped."""
        block = self.vocabulary.block("unit")
        ids = np.asarray(block.decode(self._of("unit", tokens)), np.int32)
        return ids if self.subwords is None else self.subwords.decode(ids)

    def codes_of(self, tokens: Int[np.ndarray, "Q T"]) -> Int32[np.ndarray, "Q T"]:
        """Return the codes of code tokens."""
        rows = zip(self.vocabulary.codes, tokens.astype(np.int32), strict=True)
        return np.stack([block.decode(row) for block, row in rows])

    def label_of(self, field: str, tokens: Sequence[int]) -> str | None:
        """Return the label of the first class token of ``field``; None where there is none."""
        block = self.vocabulary.block(CLASSES[field])
        labels = self._of(CLASSES[field], tokens)
        return block.labels[labels[0] - block.start] if labels else None

    def _of(self, block: str, tokens: Sequence[int]) -> list[int]:
        return [token for token in tokens if self.vocabulary.block_of(token) == block]


def unlearnt_message(found: Sequence[str]) -> str:
    """Return the sentence about what `Fields.unlearnt` has found."""
    return f"the text has {' '.join(map(repr, found))}, which never occurred in training"


def _translations(value: Any) -> dict[str, str]:
    if not value:
        return {}
    if isinstance(value, Mapping):
        return {str(language): text for language, text in value.items() if text}
    return {item["language"]: item["text"] for item in value if item["text"]}
