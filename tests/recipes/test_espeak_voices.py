"""The judge's voices and sentences are not those it judges."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from unitone.errors import ConfigError
from unitone.recipes.espeak.clauses import split_of
from unitone.recipes.espeak.corpus import EspeakConfig, _clauses, prepare
from unitone.recipes.espeak.voices import SPEAKERS


def test_no_voice_is_in_two_sets() -> None:
    main, judge = ({one.name for one in SPEAKERS[name]} for name in ("main", "judge"))
    assert len(main) == len(judge) == 10
    assert not main & judge
    assert {one.gender for one in SPEAKERS["judge"]} == {"male", "female"}


def test_no_test_sentence_is_in_the_judges_training_data() -> None:
    judge = _clauses(EspeakConfig(out=Path("x"), voices="judge"), 300)
    main = _clauses(EspeakConfig(out=Path("x")), 300)
    assert [clause for clause, _ in judge] != [clause for clause, _ in main]
    assert all(split_of(clause) == split for clause, split in judge)
    learnt = {clause for clause, split in judge if split == "train"}
    assert not learnt & {clause for clause, split in main if split == "test"}


@pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed ([tour])"
)
def test_the_judges_corpus_is_another_one(tmp_path: Path) -> None:
    config = EspeakConfig(out=tmp_path, utterances=6, workers=1, voices="judge")
    rows = [json.loads(line) for line in prepare(config).read_text().splitlines()]
    assert {row["speaker"] for row in rows} <= {one.name for one in SPEAKERS["judge"]}
    assert "--voices judge" in (tmp_path / "README.md").read_text()
    with pytest.raises(ConfigError, match="voices = judge, now it is main"):
        prepare(EspeakConfig(out=tmp_path, utterances=6, workers=1))
