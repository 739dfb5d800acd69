"""References and hypotheses from files, brought together by id, with nothing silently left out.

Hypotheses are JSON lines as ``python -m lm.decode`` writes them: ``id``, ``text`` or ``label``,
and where there are any ``task``, ``to`` (target language) and ``truncated`` (cut at the cap); or a
NeMo manifest with ``pred_text``, sclite's trn, Kaldi's text (`unitone.eval.formats`).
References are a corpus manifest in any form that `unitone.corpus.corpus` reads, trn, Kaldi's text,
or JSON lines with an ``id`` and whatever the score needs: ``text``, ``translation``, ``language``,
``gender``.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from unitone.errors import ConfigError, CorpusError
from unitone.eval import formats

logger = logging.getLogger(__name__)

Key = tuple[str, ...]
"""What brings the two together: the id, or the id and the target language."""
SCORED_BY = {
    "asr": "eval.wer",
    "st": "eval.bleu",
    "mt": "eval.bleu",
    "lid": "eval.classify",
    "gid": "eval.classify",
}
"""Task → the command that scores its hypotheses; those of other tasks are nobody's alone."""
_NAMED = 3
"""Ids that an error names."""


NO_SPLITS = (
    'no line has a "split" field; of splits that `lm.decode --split-by` made, give --decoded '
    "instead of --split"
)


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One line of a hypotheses file."""

    id: str
    task: str | None
    to: str | None
    """Target language of a translation."""
    text: str | None
    label: str | None
    truncated: bool
    """Whether decoding was cut off by its cap on the length."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One utterance of a manifest: its id and every field of its line."""

    id: str
    fields: Mapping[str, Any]

    def group(self, field: str) -> str:
        """Return the value of ``field`` as the name of a group."""
        value = self.fields.get(field)
        return "(none)" if value is None else str(value)


_Line = TypeVar("_Line", Hypothesis, Reference)


class References(list[Reference]):
    """What is scored of a file, and the ids of the rest, whose hypotheses are nobody's error."""

    def __init__(self, chosen: Iterable[Reference], *, outside: Iterable[str] = ()) -> None:
        super().__init__(chosen)
        self.outside = frozenset(map(composed, outside))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A reference and its hypothesis; None where there is none (``--allow-missing``)."""

    key: Key
    reference: Reference
    hypothesis: Hypothesis | None


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many utterances a score is about, and how many of their hypotheses fall short."""

    utterances: int
    missing: int
    truncated: int


def read_hypotheses(path: Path, *, command: str) -> list[Hypothesis]:
    """Read a hypotheses file for the score of ``command``; every line must be usable.

    Raises:
        ConfigError: there is no such file, or its task is scored by another command.
        CorpusError: it is empty, or a line is not a hypothesis.
    """
    found = [
        _hypothesis(record, where=f"{path} line {line}") for line, record in formats.records(path)
    ]
    if not found:
        raise CorpusError(f"{path}: no hypotheses in it; did the decoding finish?")
    for one in found:
        cure = SCORED_BY.get(one.task or "", command)
        if cure != command:
            raise ConfigError(
                f"the hypotheses are of task {one.task!r} ({one.id}); use python -m {cure}"
            )
    return found


def read_references(
    path: Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    decoded: Path | None = None,
) -> References:
    """Read a manifest as references: of one split where that is named, the first ``limit``.

    With ``decoded``, a file of hypotheses, only those that its decoding was asked for: that have a
    hypothesis, or a line in the ``.skipped.jsonl`` beside it.

    Raises:
        ConfigError: there is no such file, or no utterance is in that split.
        CorpusError: it is empty, a line can't be used, or an id comes twice.
    """
    everything = found = list(_references(path))
    if not found:
        raise CorpusError(f"{path}: no references in it")
    if split is not None:
        splits = sorted({str(one.fields["split"]) for one in found if one.fields.get("split")})
        found = [one for one in found if one.fields.get("split") == split]
        if not found:
            known = f"there are {', '.join(splits)}" if splits else NO_SPLITS
            raise ConfigError(f"--split {split}: no reference of {path} has it; {known}")
    if decoded is not None:
        wanted = asked_for(decoded)
        found = [one for one in found if composed(one.id) in wanted]
        if not found:
            raise ConfigError(f"--decoded: {decoded} and {path} have no id in common")
    _refuse_twice([(one.id,) for one in found], where=path)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be 1 or more, got {limit}")
    chosen = found[:limit]
    ids = {one.id for one in chosen}
    return References(chosen, outside=[one.id for one in everything if one.id not in ids])


def asked_for(path: Path) -> set[str]:
    """Return the ids, composed, of hypotheses and of what their decoding has left out."""
    skipped = path.with_suffix(".skipped.jsonl")
    lines = [*formats.records(path), *(formats.records(skipped) if skipped.is_file() else ())]
    return {composed(str(record["id"])) for _, record in lines if record.get("id") is not None}


def composed(name: str) -> str:
    """Return an id with its accents composed (NFC); file systems and toolkits differ in that."""
    return unicodedata.normalize("NFC", name)


def matched(
    references: Sequence[Reference], hypotheses: Sequence[_Line], *, where: Path
) -> list[_Line]:
    """Return the hypotheses (or their lines as they stand) of ``references``, ids spelled as there.

    Those of the other splits of the file of the references, or past its ``--limit``, are left out.
    Ids that differ only in how accents are composed (NFC, NFD) are the same; so is one with the
    speaker and a hyphen before it, as trn files have them.
    """
    ids = {one.id for one in references}
    spelled = {composed(f"{one.group('speaker')}-{one.id}"): one.id for one in references}
    spelled |= {composed(name): name for name in ids}
    outside = references.outside if isinstance(references, References) else frozenset()
    kept = []
    for one in hypotheses:
        name = composed(one.id)
        if one.id in ids:
            kept.append(one)
        elif name in spelled or name not in outside:
            kept.append(replace(one, id=spelled.get(name, one.id)))
    if len(kept) < len(hypotheses):
        count = len(hypotheses) - len(kept)
        logger.info("%s: %d hypotheses of other references are not scored", where, count)
    return kept


def pair(
    references: Mapping[Key, Reference],
    hypotheses: Iterable[tuple[Key, Hypothesis]],
    *,
    where: Path,
    allow_missing: bool = False,
) -> list[Pair]:
    """Bring every reference and its hypothesis together, in the order of the references.

    Args:
        references: what has to be there.
        hypotheses: what is there, each with its key.
        where: the file of the hypotheses, for errors.
        allow_missing: a reference without a hypothesis gets None, which counts as empty, instead
            of an error.

    Raises:
        CorpusError: a reference has no hypothesis, a hypothesis no reference, or a key comes twice.
    """
    keyed = list(hypotheses)
    _refuse_twice([key for key, _ in keyed], where=where)
    by_key = dict(keyed)
    extra = [key for key in by_key if key not in references]
    if extra:
        raise CorpusError(
            f"{where}: {_some(extra, 'hypothesis', 'hypotheses')} of no reference"
            f"{_alike(extra[0], references)}; score against the manifest that was decoded"
        )
    missing = [key for key in references if key not in by_key]
    if missing and not allow_missing:
        raise CorpusError(
            f"{where}: no hypothesis for {_some(missing, 'reference', 'references')}; decode them, "
            "name the decoded part with --split, --limit or --decoded, or count them as empty with "
            "--allow-missing"
        )
    return [
        Pair(key=key, reference=reference, hypothesis=by_key.get(key))
        for key, reference in references.items()
    ]


def pair_by_id(
    references: Sequence[Reference],
    hypotheses: Sequence[Hypothesis],
    *,
    where: Path,
    allow_missing: bool = False,
) -> list[Pair]:
    """Bring every reference and the hypothesis of its id together; as `pair`."""
    return pair(
        {(one.id,): one for one in references},
        [((one.id,), one) for one in matched(references, hypotheses, where=where)],
        where=where,
        allow_missing=allow_missing,
    )


def coverage(pairs: Sequence[Pair]) -> Coverage:
    """Count what a reader of the score should know."""
    present = [one.hypothesis for one in pairs if one.hypothesis is not None]
    return Coverage(
        utterances=len(pairs),
        missing=len(pairs) - len(present),
        truncated=sum(one.truncated for one in present),
    )


def _some(keys: Sequence[Key], one: str, many: str) -> str:
    """Name the first keys and how many there are."""
    names = ", ".join(" to ".join(key) for key in keys[:_NAMED])
    more = ", …" if len(keys) > _NAMED else ""
    return f"{len(keys):,} {one if len(keys) == 1 else many} ({names}{more})"


def _alike(key: Key, references: Iterable[Key]) -> str:
    """Show a reference that an unknown id can hardly be told from, with what differs spelled."""

    def folded(one: Key) -> str:
        name = unicodedata.normalize("NFKC", one[0]).casefold().rsplit("/", 1)[-1]
        return "".join(name.split()).removesuffix(".wav").removesuffix(".flac")

    for known in references:
        if folded(known) == folded(key) and known[0] != key[0]:
            return f", but {key[0]!a} is nearly the reference {known[0]!a}"
    return ""


def _refuse_twice(keys: Sequence[Key], *, where: Path) -> None:
    twice = [key for key, times in Counter(keys).items() if times > 1]
    if twice:
        raise CorpusError(f"{where}: {_some(twice, 'id comes', 'ids come')} more than once")


def _references(path: Path) -> Iterator[Reference]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or directory")
    if not _is_plain(path):
        yield from _corpus_references(path)
        return
    for line, record in formats.records(path):
        yield Reference(id=_id(record, where=f"{path} line {line}"), fields=record)


def _is_plain(path: Path) -> bool:
    """Tell texts with an id, which need no audio, from the other forms of a manifest."""
    if formats.is_text(path):
        return True
    if not path.is_file() or not formats.is_json(path):
        return False
    first = formats.first_object(path) or {"id": ""}
    kind = str(first.get("type", ""))
    return "id" in first and not kind.endswith("Cut") and not {"recording", "start"} <= first.keys()


def _corpus_references(path: Path) -> Iterator[Reference]:
    """Read the forms of manifests that aren't plain JSON lines: Lhotse, NeMo, fairseq."""
    from unitone.corpus.corpus import read_corpus

    try:
        corpus = read_corpus(path)
    except ConfigError as error:  # which names the option of the commands that make corpora
        raise ConfigError(str(error).replace("--manifest ", "--ref ")) from error
    for skipped in corpus.skipped:  # a score can't leave an utterance out
        raise CorpusError(f"{path} line {skipped.line}: {skipped.reason}")
    names = ("text", "translation", "language", "speaker", "gender", "split")
    for utterance in corpus.utterances:
        fields = {name: getattr(utterance, name) for name in names}
        yield Reference(id=utterance.id, fields=fields)


def _hypothesis(record: Mapping[str, Any], *, where: str) -> Hypothesis:
    texts = {field: record.get(field) for field in ("task", "to", "text", "label")}
    if "pred_text" in record:
        texts["text"] = record["pred_text"]
    elif "audio_filepath" in record:  # whose text is what was spoken
        raise CorpusError(f'{where} is of a NeMo manifest, but has no "pred_text"')
    for field, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise CorpusError(f'{where}: field "{field}" must be a text or null, got {value!r}')
    truncated = record.get("truncated", False)
    if not isinstance(truncated, bool):
        raise CorpusError(f'{where}: field "truncated" must be true or false, got {truncated!r}')
    return Hypothesis(id=_id(record, where=where), truncated=truncated, **texts)


def _id(record: Mapping[str, Any], *, where: str) -> str:
    name = record.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise CorpusError(f'{where}: field "id" must be a text, got {name!r}')
    return str(name)
