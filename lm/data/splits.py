"""Splits for shards that have none: which utterances are learnt, looked at and tested on.

Who is in which split is decided by the hash of the id, the speaker or another label alone, so every
command that is told the same finds the same, and no file says it.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from unitone.errors import ConfigError, CorpusError
from unitone.tokenizers.shards import TokenShards

COLUMNS = {"utterance": "id", "speaker": "speaker", "text": "text", "language": "language"}
"""What may be split by, and the column that has it."""
SHARE = 0.05
"""Of the values that are dev's, and of those that are test's; one at the least."""


def splitter(shards: TokenShards, by: str | None) -> Callable[[Mapping[str, Any]], str | None]:
    """Return what says the split of a row: its own or, with ``by``, train, dev or test.

    Raises:
        ConfigError: there are splits already, no such field, or too few values to split.
    """
    if by is None:
        return lambda row: row["split"]
    if by not in COLUMNS:
        raise ConfigError(f"--split-by {by}: it must be one of {', '.join(COLUMNS)}")
    if found := shards.distinct("split"):
        names = ", ".join(sorted(found))
        raise ConfigError(f"--split-by: the shards have splits already ({names}); leave it out")
    column = COLUMNS[by]
    values = sorted(shards.distinct(column), key=lambda one: hashlib.sha256(one.encode()).digest())
    if len(values) < 3:
        raise ConfigError(f"--split-by {by}: there are {len(values)} of it, and it takes three")
    many = max(1, round(SHARE * len(values)))
    split_of = dict.fromkeys(values[:many], "dev") | dict.fromkeys(values[many : 2 * many], "test")

    def split(row: Mapping[str, Any]) -> str:
        if row[column] is None:  # whose it is can't be known, so it is in no split for sure
            raise CorpusError(f"--split-by {by}: {row['id']} has none; split by another")
        return split_of.get(row[column], "train")

    return split
