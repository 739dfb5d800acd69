"""The Parquet files of shards: the bytes pyarrow would write from the rows, made without pandas."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unitone.tokenizers import parts

PROBE = """
import sys
from pathlib import Path
from unitone.tokenizers import parts
path = Path(sys.argv[1])
count = parts.count(path)
row = parts.read_group(path, 0)[0]
parts.write(path, [row | {"codes": row["codes"].tolist()}], metadata={}, row_group=9, codes=True)
print(count["frames"], row["codes"].tolist(), parts.column(path, "id").to_pylist())
print([name for name in ("pandas", "pyarrow.dataset") if name in sys.modules])
"""


def _rows(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"u/{i}",
            "units": [i, 2**31 - 1][: i % 3],
            "durations": [1, 5][: i % 3],
            "text": (None, "", 'a "b" é \U0001f600\n\\ \x00')[i % 3],
            "translation": [{"language": "de", "text": "ü"}][: i % 2],
            "language": "en",
            "speaker": None,
            "gender": None,
            "split": "train",
            "num_samples": 2**40 + i,
            "codes": [[i, 1, 2], [3, 4, 5]],
        }
        for i in range(number)
    ]


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("number", [0, 1, 700])
def test_the_bytes_are_those_of_the_rows(tmp_path: Path, number: int, codes: bool) -> None:
    rows, metadata = _rows(number), {"name": "value"}
    parts.write(tmp_path / "part", rows, metadata=metadata, row_group=256, codes=codes)

    schema = (parts.SCHEMA.append(parts.CODES) if codes else parts.SCHEMA).with_metadata(metadata)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, tmp_path / "pyarrow", compression="zstd", row_group_size=256)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "pyarrow").read_bytes()
    frames = [duration for row in rows for duration in row["durations"]]
    assert parts.count(tmp_path / "part")["frames"] == sum(frames)


def test_codes_are_arrays_of_levels_and_frames(tmp_path: Path) -> None:
    wanted = [np.array([[1, 2, 3]]), None, np.zeros((2, 0)), np.array([[4, 5], [6, 7]])]
    rows = [
        row | {"codes": None if codes is None else codes.tolist()}
        for row, codes in zip(_rows(4), wanted, strict=True)
    ]
    parts.write(tmp_path / "part", rows, metadata={}, row_group=2, codes=True)

    found = [row["codes"] for group in (0, 1) for row in parts.read_group(tmp_path / "part", group)]
    assert found[1] is None
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.shape == other.shape
            assert (one == other).all()


def test_writing_and_reading_import_no_pandas(tmp_path: Path) -> None:
    """Nor Arrow's own data sets: together, a third of the start of a command."""
    parts.write(tmp_path / "part", _rows(3)[2:], metadata={}, row_group=9, codes=True)

    command = [sys.executable, "-c", PROBE, str(tmp_path / "part")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["6 [[2, 1, 2], [3, 4, 5]] ['u/2']", "[]"]
