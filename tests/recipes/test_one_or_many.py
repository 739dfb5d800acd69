"""The comparison of one model with many, from the files that the scores leave."""

import json
from pathlib import Path

from unitone.recipes.one_or_many import OneOrManyConfig, steps, table
from unitone.recipes.tour.stages import SCORED

FILES = {"asr": "wer", "tts": "judge", "st": "bleu", "mt": "bleu", "lid": "classify"}


def test_the_table_reads_what_each_command_writes(tmp_path: Path) -> None:
    for task, scored in SCORED.items():
        single = {scored.key: 0.25, f"{scored.key}_interval": {"low": 0.2, "high": 0.3}}
        joint = {scored.key: 0.5, f"{scored.key}_interval": {"low": 0.4, "high": 0.6}}
        found = {"synthesised": single} if task == "tts" else dict(single)
        found |= {"other": joint, "comparison": {scored.key: {"p_value": 0.03}}}
        folder = tmp_path / task / "scores"
        folder.mkdir(parents=True)
        (folder / f"{FILES.get(task, 'classify')}.json").write_text(json.dumps(found))

    rows = table(OneOrManyConfig(out=tmp_path)).splitlines()[2:]

    assert len(rows) == len(SCORED)
    assert (
        "| tts | CER % of the ASR judge | 50.0 | 40.0 to 60.0 | 25.0 | 20.0 to 30.0 | 0.03 |"
        in rows[1]
    )
    assert "| mt | BLEU | 0.5 | 0.4 to 0.6 | 0.2 | 0.2 to 0.3 | 0.03 |" in rows[3]


def test_the_budget_is_divided_and_synthesis_meets_synthesis() -> None:
    made = list(steps(OneOrManyConfig(seconds=100.0)))
    seconds = [step.config.train.max_seconds for step in made if step.module == "lm.train"]
    assert len(seconds) == len(SCORED)
    assert 95 < sum(seconds) < 100  # speech continuation has the rest
    (judged,) = [step.config.scoring for step in made if step.module == "eval.judge_score"]
    assert judged.against == Path("exp/one-or-many/tts/joint.jsonl")
