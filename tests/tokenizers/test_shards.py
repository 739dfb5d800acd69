"""Shards: any order of results, any kill, any part size of the same corpus give the same rows."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.corpus.corpus import Corpus, read_corpus
from unitone.corpus.utterance import Skipped
from unitone.errors import CheckpointError, ConfigError, CorpusError
from unitone.tokenizers.formats import espnet_name, export
from unitone.tokenizers.passport import (
    EncoderPassport,
    FramesPassport,
    KMeansPassport,
    Passport,
    SubwordsPassport,
)
from unitone.tokenizers.shards import ShardWriter, Tokens, TokenShards

PASSPORT = Passport(
    encoder=EncoderPassport(
        name="mfcc", weight_hash="a", layer=0, dim=39, normalize_waveform=False, precision="fp32"
    ),
    frames=FramesPassport(frame_policy="exact", window=60.0, context=5.0, frame_rate=100.0),
    kmeans=KMeansPassport(k=8, centroid_hash="b"),
    deduplicate=True,
    unit_pieces=None,
    text=SubwordsPassport(kind="bytes", size=256, model_hash="c"),
)
OTHER = dataclasses.replace(PASSPORT, kmeans=KMeansPassport(k=9, centroid_hash="b"))

NUM = 10
"""Manifest lines; line 4 is broken, utterance 6 can't be encoded."""


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    lines = [
        json.dumps(
            {
                "id": f"u/{i}",
                "audio": f"{i}.wav",
                "text": f"TEXT {i}",
                "split": "train" if i < 8 else "test",
                "translation": {"de": f"SATZ {i}"} if i == 2 else None,
            }
        )
        for i in range(NUM)
    ]
    lines[3] = "broken"
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    return read_corpus(tmp_path / "m.jsonl")


def result(index: int) -> Tokens | Skipped:
    if index == 6:
        return Skipped(id="u/6", line=7, reason="silent")
    units = np.arange(index, index + 4, dtype=np.int32)
    durations = np.full(4, 1 + index, np.int32)
    return Tokens(index=index, units=units, durations=durations, num_samples=1000 + index)


def write(out: Path, corpus: Corpus, order: list[int], *, shard_size: int = 3) -> ShardWriter:
    writer = ShardWriter(out, corpus=corpus, passport=PASSPORT, shard_size=shard_size)
    for index in order:
        writer.add(result(index), index=index)
    writer.close()
    return writer


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


USABLE = [i for i in range(NUM) if i != 3]


def test_rows_hold_what_the_manifest_and_the_encoder_say(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()

    shards = TokenShards(tmp_path / "out", passport=PASSPORT)
    rows = list(shards.rows())

    assert [row["id"] for row in rows] == [f"u/{i}" for i in range(NUM) if i not in (3, 6)]
    assert rows[2]["translation"] == [{"language": "de", "text": "SATZ 2"}]
    assert rows[2]["units"] == [2, 3, 4, 5]
    assert rows[2]["durations"] == [3, 3, 3, 3]
    assert rows[7]["num_samples"] == 1009
    assert shards[7] == rows[7]
    assert [row["id"] for row in shards.rows(start=6)] == ["u/8", "u/9"]
    skipped = _lines(tmp_path / "out" / "skipped.jsonl")
    assert [item["line"] for item in skipped] == [4, 7]
    assert skipped[1]["reason"] == "silent"
    assert shards.index["num_units"] == 4 * len(rows)


def test_other_readers_can_read_the_parts(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()

    table = pq.read_table(tmp_path / "out" / "part-00000.parquet")

    assert table.column_names[:3] == ["id", "units", "durations"]
    assert table.schema.metadata[b"unitone.passport_hash"].decode() == PASSPORT.hash


@given(order=st.permutations(USABLE), stop=st.integers(0, len(USABLE)), torn=st.booleans())
def test_a_killed_run_ends_in_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], stop: int, torn: bool
) -> None:
    folder = tmp_path_factory.mktemp("kill")
    lines = [json.dumps({"id": f"u/{i}", "audio": f"{i}.wav"}) for i in range(NUM)]
    lines[3] = "broken"
    (folder / "m.jsonl").write_text("\n".join(lines))
    corpus = read_corpus(folder / "m.jsonl")
    write(folder / "whole", corpus, USABLE).finish()

    write(folder / "killed", corpus, order[:stop])
    if torn:
        for journal in (folder / "killed" / ".journal").glob("part-*"):
            with journal.open("a") as file:
                file.write('{"index": 8, "units": [1, 2')
    again = ShardWriter(folder / "killed", corpus=corpus, passport=PASSPORT, shard_size=3)
    assert sorted(again.missing()) == sorted(order[stop:])
    for index in again.missing():
        again.add(result(index), index=index)
    again.finish()

    assert content(folder / "killed") == content(folder / "whole")
    shutil.rmtree(folder)


def test_a_finished_folder_misses_nothing(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()
    before = content(tmp_path / "out")

    again = ShardWriter(tmp_path / "out", corpus=corpus, passport=PASSPORT, shard_size=3)

    assert again.missing() == []
    again.finish()
    assert content(tmp_path / "out") == before


def test_a_folder_of_another_job_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, [0])

    with pytest.raises(ConfigError, match="begun with shard_size = 3, now it is 4"):
        ShardWriter(tmp_path / "out", corpus=corpus, passport=PASSPORT, shard_size=4)
    other = corpus.only("test")
    with pytest.raises(ConfigError, match="begun with manifest_sha256 = "):
        ShardWriter(tmp_path / "out", corpus=other, passport=PASSPORT, shard_size=3)
    with pytest.raises(ConfigError, match="begun with passport_hash = "):
        ShardWriter(tmp_path / "out", corpus=corpus, passport=OTHER, shard_size=3)
    with pytest.raises(CheckpointError, match="not finished"):
        TokenShards(tmp_path / "out")


def test_shards_of_another_tokenizer_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()

    with pytest.raises(ConfigError, match=r"kmeans\.k"):
        TokenShards(tmp_path / "out", passport=OTHER)


def test_nothing_usable_is_an_error_that_keeps_the_reasons(corpus: Corpus, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "out", corpus=corpus, passport=PASSPORT, shard_size=100)
    for index in USABLE:
        writer.add(Skipped(id=f"u/{index}", line=index + 1, reason="gone"), index=index)

    with pytest.raises(CorpusError, match="no utterance could be encoded"):
        writer.finish()
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == NUM


def test_fairseq_files_line_up(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()
    export(TokenShards(tmp_path / "out"), corpus, to="fairseq", out=tmp_path / "f")

    manifest = (tmp_path / "f" / "train.tsv").read_text().splitlines()
    units = (tmp_path / "f" / "train.km").read_text().splitlines()
    assert manifest[0] == "/"
    assert len(manifest) == len(units) + 1
    assert units[1] == "1 1 2 2 3 3 4 4"
    assert manifest[2].endswith("/1.wav\t1001")
    assert (tmp_path / "f" / "dict.km.txt").read_text().splitlines()[7] == "7 1"
    assert len((tmp_path / "f" / "test.km").read_text().splitlines()) == 2


def test_espnet_text_is_what_its_recipes_write(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()
    export(TokenShards(tmp_path / "out"), corpus, to="espnet", out=tmp_path / "e")

    name = espnet_name(PASSPORT)
    assert name == "mfcc_0_km8"
    assert (tmp_path / "e" / "pseudo_labels_km8.txt").read_text().splitlines()[1] == (
        "u/1 1 1 2 2 3 3 4 4"
    )
    every = (tmp_path / "e" / f"text.ts.{name}").read_text().splitlines()[1]
    kept = (tmp_path / "e" / f"text.rm.{name}").read_text().splitlines()[1]
    assert [ord(c) - 0x4E00 for c in every.split()[1]] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [ord(c) - 0x4E00 for c in kept.split()[1]] == [1, 2, 3, 4]


def test_json_lines_hold_one_object_each(corpus: Corpus, tmp_path: Path) -> None:
    write(tmp_path / "out", corpus, USABLE).finish()
    export(TokenShards(tmp_path / "out"), corpus, to="jsonl", out=tmp_path / "j")

    records = _lines(tmp_path / "j" / "tokens.jsonl")
    assert len(records) == 8
    assert records[2]["translation"] == {"de": "SATZ 2"}
