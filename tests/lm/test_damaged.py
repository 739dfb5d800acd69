"""Files of ours with values that can't be meant: one sentence that names the file, never more."""

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unitone
from tests.corpus.test_foreign_fields import changed, places
from unitone.codecs import synthesize, unit_decoder
from unitone.errors import CheckpointError, UnitoneError
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer
from unitone.train.checkpoint import load_tensors, save_tensors

VALUES: tuple[Any, ...] = (None, -1, 0, 1.5, "x", [], {})
WHOLE = (b"", b"[]", b"null", b"3", b"{", b"\xff\xfe", b"{}")
READERS: dict[str, Callable[[Path], Any]] = {
    "best/config.json": lambda folder: unitone.load(folder, device="cpu"),
    "best/vocabulary.json": lambda folder: unitone.load(folder, device="cpu"),
    "best/decoder/config.json": lambda folder: unit_decoder.load(folder),
    "tokenizer/passport.json": lambda folder: Tokenizer.load(folder),
    "tokens/tokens.json": lambda folder: list(TokenShards(folder).rows()),
}


def damaged(content: bytes) -> list[bytes]:
    """Return a JSON file with each of its values changed or left out, and what is no such file."""
    good = json.loads(content)
    made: list[bytes] = [*WHOLE]
    for path in places(good):
        if any(isinstance(key, int) and key > 1 for key in path):  # of a list, two will do
            continue
        made += [json.dumps(changed(good, path, value)).encode() for value in VALUES]
        less = copy.deepcopy(good)
        inner = less
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        made.append(json.dumps(less).encode())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("file", READERS)
def test_any_value_of_any_type_is_read_or_refused_in_a_sentence(
    file: str, world: Any, tmp_path: Path
) -> None:
    origin = world.model.parent / file
    folder = tmp_path / "copy"
    shutil.copytree(origin.parent, folder)
    refused = 0
    for content in damaged(origin.read_bytes()):
        (folder / origin.name).write_bytes(content)
        try:
            READERS[file](folder)
        except UnitoneError:
            refused += 1
    assert refused > len(WHOLE)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("best/config.json", {"unitone": {"llama": {"transformer": {"heads": 0}}}}),
        ("best/config.json", {"unitone": {"llama": {"transformer": {"ffn": -1}}}}),
        ("best/config.json", {"unitone": {"learnt": {"text": [1]}}}),
        ("best/vocabulary.json", {"passport": 3}),
        ("best/decoder/config.json", {"network": {"frame_rate": 0}}),
        ("best/decoder/config.json", {"network": {"frames_per_unit": 0}}),
        ("tokens/tokens.json", {"num_rows": "six"}),
        ("tokens/tokens.json", {"num_rows": 7}),
        ("tokens/tokens.json", {"parts": None}),
        ("tokens/tokens.json", {"parts": [{"file": "gone.parquet", "first_row": 0}]}),
    ],
)
def test_the_damaged_file_is_named(
    file: str, change: dict[str, Any], world: Any, tmp_path: Path
) -> None:
    def merged(known: Any, new: Any) -> Any:
        if not isinstance(new, dict):
            return new
        return known | {key: merged(known.get(key), value) for key, value in new.items()}

    origin = world.model.parent / file
    folder = tmp_path / "copy"
    shutil.copytree(origin.parent, folder)
    (folder / origin.name).write_text(json.dumps(merged(json.loads(origin.read_text()), change)))
    with pytest.raises(UnitoneError, match=str(folder)):
        READERS[file](folder)


@pytest.mark.parametrize("file", ["best/config.json", "best/decoder/config.json"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_named(
    file: str, value: float, world: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree((world.model.parent / file).parent, folder)
    weights = load_tensors(folder / "model.safetensors")
    name = next(name for name, one in weights.items() if one.is_floating_point())
    weights[name].view(-1)[-1] = value
    save_tensors(folder / "model.safetensors", weights)
    with pytest.raises(UnitoneError, match=f"{name} holds values that are not finite"):
        READERS[file](folder)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("id", None, "a row without id"),
        ("units", None, "a row without units"),
        ("units", [-1] * 9, "units of -1"),
        ("durations", [1], "not one duration for each unit"),
        ("durations", None, "a row without durations"),
        ("durations", [0] * 9, "durations of 0"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(
    name: str, value: Any, why: str, world: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(world.tokens, folder)
    part = next(folder.glob("*.parquet"))
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[1] |= {"units": [1] * 9, "durations": [1] * 9, name: value}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)
    with pytest.raises(CheckpointError, match=why):
        list(TokenShards(folder).rows())


def test_columns_may_be_in_another_order_or_lack_but_for_the_units(
    world: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(world.tokens, folder)
    part = next(folder.glob("*.parquet"))
    table = pq.read_table(part)
    pq.write_table(table.select(table.column_names[::-1]).drop_columns("text"), part)
    assert [row["text"] for row in TokenShards(folder).rows()] == [None] * len(table)
    pq.write_table(table.drop_columns("units"), part)
    with pytest.raises(CheckpointError, match="units"):
        list(TokenShards(folder).rows())


def test_units_that_a_decoder_does_not_have_are_named(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(world.tokens, folder)
    part = next(folder.glob("*.parquet"))
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[0] |= {"units": [999], "durations": [1]}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)
    decoder = world.model / "decoder"
    words = ["--tokens", folder, "--model", decoder, "--out", tmp_path / "sound"]
    assert synthesize.main([str(word) for word in words]) == 1
    assert "utterance u0, u1, u2, …: code 999 is outside 0..11" in capsys.readouterr().err


def test_a_damaged_part_of_the_shards_is_named(world: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(world.tokens, folder)
    part = next(folder.glob("*.parquet"))
    for content in (b"", b"junk" * 100, part.read_bytes()[:1000]):
        part.write_bytes(content)
        with pytest.raises(UnitoneError, match=f"{part.name} is missing or damaged"):
            list(TokenShards(folder).rows())
