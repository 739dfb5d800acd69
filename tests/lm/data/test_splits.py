"""Splits of a corpus that has none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lm.conftest import rows
from unitone.errors import ConfigError, CorpusError
from unitone.eval import wer
from unitone.lm import train as lm_train
from unitone.lm.data.splits import splitter
from unitone.tokenizers.shards import TokenShards

MakeShards = Callable[..., Path]


def unsplit(count: int) -> list[dict[str, Any]]:
    return [row | {"split": None, "speaker": f"s{n % 7}"} for n, row in enumerate(rows(count))]


def test_utterances_are_split_by_the_hash_of_their_ids(make_shards: MakeShards) -> None:
    table = unsplit(60)
    split = splitter(TokenShards(make_shards(table)), "utterance")
    found = [split(row) for row in table]
    assert (found.count("train"), found.count("dev"), found.count("test")) == (54, 3, 3)
    again = splitter(TokenShards(make_shards(table[::-1], folder="again")), "utterance")
    assert [again(row) for row in table] == found


def test_nobody_is_in_two_splits_of_speakers(make_shards: MakeShards) -> None:
    table = unsplit(60)
    split = splitter(TokenShards(make_shards(table)), "speaker")
    of = {(row["speaker"], split(row)) for row in table}
    assert len(of) == 7
    assert {name for _, name in of} == {"train", "dev", "test"}


def test_what_can_not_be_split_is_said(make_shards: MakeShards) -> None:
    with pytest.raises(ConfigError, match=r"splits already \(dev, train\); leave it out"):
        splitter(TokenShards(make_shards(rows(8))), "utterance")
    shards = TokenShards(make_shards(unsplit(8), folder="plain"))
    with pytest.raises(ConfigError, match="--split-by age: it must be one of utterance, speaker"):
        splitter(shards, "age")
    with pytest.raises(ConfigError, match="--split-by language: there are 2 of it"):
        splitter(shards, "language")
    with pytest.raises(CorpusError, match="--split-by speaker: r0 has none"):
        splitter(shards, "speaker")({"id": "r0", "speaker": None})


def test_a_corpus_without_splits_is_refused_with_the_cure_and_trains_with_it(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = make_shards([row | {"split": None} for row in rows(40)])
    words = ["--tokens", str(shards), "--out", str(tmp_path / "run"), "--config", "lm-tiny"]
    words += ["--steps", "1", "--tasks", "asr", "--threads", "1", "--device", "cpu"]
    assert lm_train.main(words) == 1
    assert "which have no splits: `--split-by utterance`" in capsys.readouterr().err
    assert lm_train.main([*words, "--split-by", "utterance"]) == 0
    assert (tmp_path / "run" / "best").is_dir()
    assert "--split-by utterance" in capsys.readouterr().err


def test_splits_that_decoding_made_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest knows nothing of them; the hypotheses and what was left out do."""
    ref, hyp = tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl"
    ref.write_text("".join(json.dumps({"id": f"u{n}", "text": "a b"}) + "\n" for n in range(6)))
    hyp.write_text("".join(json.dumps({"id": f"u{n}", "text": "a c"}) + "\n" for n in (1, 4)))
    words = ["--ref", str(ref), "--hyp", str(hyp)]
    assert wer.main([*words, "--split", "test"]) == 2
    assert "give --decoded instead of --split" in capsys.readouterr().err
    assert wer.main(words) == 1
    assert "--split, --limit or --decoded" in capsys.readouterr().err
    assert wer.main([*words, "--decoded"]) == 0
    assert "50.0" in capsys.readouterr().out
    (tmp_path / "hyp.skipped.jsonl").write_text(json.dumps({"id": "u2", "reason": "x"}) + "\n")
    assert wer.main([*words, "--decoded"]) == 1
    assert "u2" in capsys.readouterr().err
    assert wer.main([*words, "--decoded", "--allow-missing"]) == 0
    (tmp_path / "hyp.skipped.jsonl").unlink()
    hyp.write_text(json.dumps({"id": "v", "text": "a"}) + "\n")
    assert wer.main([*words, "--decoded"]) == 2
