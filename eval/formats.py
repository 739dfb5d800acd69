"""Files of texts with ids, from this toolkit and others: each line as a JSON-like record.

- JSON lines, with an ``id``, or NeMo's with ``audio_filepath`` (whose id is the corpus reader's).
- sclite's trn (``two dogs (ann-001)``): a name in ``.trn``, or lines that all end with an id.
  ``{ dog / dogs / @ }`` is one of these or nothing, and the text then a list.
- Kaldi's text (``ann-001 two dogs``): a name that begins with ``text``, or any other; a text may be
  empty.
"""

import gzip
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitone.corpus.lines import loads
from unitone.errors import ConfigError, CorpusError

Record = dict[str, Any]
_JSON = (".jsonl", ".json")
_TRN = re.compile(r"^(.*?)\s*\(([^()\s]+)\)\s*$")
_KALDI = re.compile(r"text([^a-z]|$)")
_ALTERNATION = re.compile(r"\{([^{}]*/[^{}]*)\}")
_MOST = 256
"""Texts that the alternatives of a line may make."""


def is_json(path: Path) -> bool:
    """Tell by its name whether a file is JSON lines."""
    return path.name.removesuffix(".gz").endswith(_JSON)


def is_text(path: Path) -> bool:
    """Tell whether a file is sclite's trn or Kaldi's text, by its name and its first line."""
    name = path.name.removesuffix(".gz")
    if not path.is_file() or name.endswith((*_JSON, ".tsv")):
        return False
    if name.endswith(".trn"):
        return True
    return next(_lines(path), (0, ""))[1].lstrip()[:1] not in ("{", "[")


def first_object(path: Path) -> Record:
    """Return the first object of a file of JSON lines as it stands there; empty without one."""
    for line, text in _lines(path):
        return _object(text, where=f"{path} line {line}")
    return {}


def records(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (line number, record) of a file in any of the forms.

    Raises:
        ConfigError: there is no such file.
        CorpusError: a line can't be used, or the file is damaged.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if not is_text(path):
        yield from _with_nemo_ids(path)
        return
    trn = _is_trn(path)
    for line, text in _lines(path):
        where = f"{path} line {line}"
        if trn and text.startswith(";;"):
            continue
        yield line, _of_trn(text, where=where) if trn else _of_kaldi(text)


def _is_trn(path: Path) -> bool:
    """Tell trn from Kaldi's text, in which a sentence may end in parentheses too."""
    if path.name.removesuffix(".gz").endswith(".trn"):
        return True
    return not _KALDI.match(path.name) and all(_TRN.match(text) for _, text in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that aren't blank, with their numbers."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, text
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path} is damaged ({error})") from error


def _of_trn(text: str, *, where: str) -> Record:
    found = _TRN.match(text.strip())
    if not found:
        raise CorpusError(f"{where}: a line of a trn file ends with its id in parentheses")
    return {"id": found[2], "text": _alternatives(found[1], where=where)}


def _alternatives(text: str, *, where: str) -> str | list[str]:
    """Return a text, or all that ``{ a / b / @ }`` in it stands for; @ is nothing."""
    parts = _ALTERNATION.split(text)  # what is in braces has odd places
    if len(parts) == 1:
        return text
    choices = [part.split("/") if place % 2 else [part] for place, part in enumerate(parts)]
    if any("{" in one or "}" in one for one in parts):
        raise CorpusError(f"{where}: alternatives within alternatives are not read; write them out")
    if math.prod(map(len, choices)) > _MOST:
        raise CorpusError(f"{where}: its alternatives make more than {_MOST} texts")
    texts = (" ".join("".join(one).split()) for one in itertools.product(*choices))
    return list(dict.fromkeys(" ".join(w for w in one.split() if w != "@") for one in texts))


def _of_kaldi(text: str) -> Record:
    name, *rest = text.split(maxsplit=1)
    return {"id": name, "text": rest[0].strip() if rest else ""}


def _with_nemo_ids(path: Path) -> Iterator[tuple[int, Record]]:
    known: dict[int, str] | None = None
    for line, text in _lines(path):
        record = _object(text, where=f"{path} line {line}")
        if "id" not in record and "audio_filepath" in record:
            known = _nemo_ids(path) if known is None else known
            record["id"] = known[line]
        yield line, record


def _nemo_ids(path: Path) -> dict[int, str]:
    """Return the ids of a NeMo manifest by line, as those of a reference in that form."""
    from unitone.corpus.corpus import read_corpus

    corpus = read_corpus(path)
    for skipped in corpus.skipped:  # a score can't leave an utterance out
        raise CorpusError(f"{path} line {skipped.line}: {skipped.reason}")
    return {one.line: one.id for one in corpus.utterances}


def _object(text: str, *, where: str) -> Record:
    try:
        record = loads(text)
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON ({error}); was its writing cut off?") from error
    if not isinstance(record, dict):
        raise CorpusError(f"{where} is a JSON {type(record).__name__}, not an object")
    return record
