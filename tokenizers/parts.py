"""The Parquet files of token shards: what their columns are, written and read.

`unitone.tokenizers.shards` says which rows are in which part. Only this module imports pyarrow, and
it is imported where a part is.
"""

import contextlib
import importlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from unitone import files
from unitone.errors import CheckpointError

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("units", pa.list_(pa.int32())),
        ("durations", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("translation", pa.list_(pa.struct([("language", pa.string()), ("text", pa.string())]))),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("gender", pa.string()),
        ("split", pa.string()),
        ("num_samples", pa.int64()),
    ]
)
CODES = pa.field("codes", pa.list_(pa.list_(pa.int32())))
"""The column more that shards with a codec's codes have: levels, coarsest first, of frames."""


def write(
    path: Path,
    rows: list[dict[str, Any]],
    *,
    metadata: Mapping[str, str],
    row_group: int,
    codes: bool,
) -> None:
    """Write a part, whole or not at all; ``codes``: with the column of codes."""
    table = table_of(rows, SCHEMA.append(CODES) if codes else SCHEMA)
    table = table.replace_schema_metadata(metadata)
    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group)


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows of JSON values as a table; what a row lacks is null, what else it has is left.

    By Arrow's reader of JSON: ``Table.from_pylist`` imports pandas, a second of start-up, to look
    whether a list is one of pandas'.
    """
    if not rows:
        return schema.empty_table()
    lines = "\n".join(map(json.dumps, rows)).encode()
    return pj.read_json(
        pa.BufferReader(lines),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def count(path: Path) -> Counter[str]:
    """Return the rows, samples, units and frames of a part.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        table = _read(path, ["units", "durations", "num_samples"])
    except pa.ArrowInvalid as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it and run again") from error
    return Counter(
        rows=len(table),
        samples=_sum(table["num_samples"].combine_chunks()),
        units=len(table["units"].combine_chunks().flatten()),
        frames=_sum(table["durations"].combine_chunks().flatten()),
    )


NEEDED = ("id", "units", "durations", "num_samples")
"""Columns that every row has something in."""


def _sum(values: pa.Array) -> int:
    return int(_numbers(values).sum()) if len(values) else 0


def _numbers(values: pa.Array) -> np.ndarray:
    """Return numbers without nulls; ``to_numpy`` imports pandas."""
    return np.from_dlpack(values)


def read_metadata(path: Path, name: str) -> str | None:
    """Return what `write` kept under ``name``."""
    with _reading(path):
        found = (pq.read_schema(path).metadata or {}).get(name.encode())
    return None if found is None else found.decode("utf-8")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ArithmeticError, LookupError, pa.ArrowException) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error}); encode again into another folder"
        ) from error


def read_group(path: Path, number: int) -> list[dict[str, Any]]:
    """Return the rows of a row group.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    with _reading(path), pq.ParquetFile(path) as file:
        table = file.read_row_group(number)
        _check(table)
        return _rows_of(table)


def _check(table: pa.Table) -> None:
    """Refuse rows, of whatever program, that lack an id, units or a duration for each of them.

    Raises:
        KeyError, pa.ArrowException: they do.
    """
    compute: Any = importlib.import_module("pyarrow.compute")  # whose functions are made at import
    needed = table.select(NEEDED).cast(pa.schema([SCHEMA.field(name) for name in NEEDED]))
    for name in NEEDED:
        if needed[name].null_count:
            raise pa.ArrowInvalid(f"a row without {name}")
    units, durations = needed["units"], needed["durations"]
    if not compute.list_value_length(units).equals(compute.list_value_length(durations)):
        raise pa.ArrowInvalid("not one duration for each unit")
    for name, least in (("units", 0), ("durations", 1)):
        lowest = compute.min(compute.list_flatten(needed[name])).as_py()
        if lowest is not None and lowest < least:
            raise pa.ArrowInvalid(f"{name} of {lowest}")


def column(path: Path, name: str) -> Any:
    """Return a column, pyarrow's, without reading the others; errors as `read_group`."""
    with _reading(path):
        return _read(path, [name])[name]


def _read(path: Path, columns: list[str]) -> pa.Table:
    """``pq.read_table`` would import Arrow's data sets for the one file."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows; codes, of which there are many, as arrays ``(Q, T)``."""
    for name in SCHEMA.names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), SCHEMA.field(name).type))
    if CODES.name not in table.column_names:
        plain: list[dict[str, Any]] = table.to_pylist()
        return plain
    rows: list[dict[str, Any]] = table.drop_columns(CODES.name).to_pylist()
    for row, codes in zip(rows, table[CODES.name], strict=True):
        row[CODES.name] = None
        if codes.is_valid:
            levels = codes.values
            row[CODES.name] = _numbers(levels.flatten()).reshape(len(levels), -1)
    return rows
