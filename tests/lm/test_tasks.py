import dataclasses
import json
from pathlib import Path

import pytest

from unitone.config import from_dict, to_dict
from unitone.errors import ConfigError
from unitone.lm.decoder import template
from unitone.lm.decoder.template import POLYSPEECH, TABLES, TASKS, VOXTLM, DecoderTask
from unitone.lm.tasks import select

ASR = TASKS[0]


def test_the_seven_tasks() -> None:
    assert [task.name for task in TASKS] == ["asr", "tts", "st", "mt", "lid", "gid", "continue"]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_parses_and_ends_in_eos(name: str) -> None:
    for task in TABLES[name]:
        last = task.parts[-1]
        assert (last.name, last.target) == ("<eos>", True)
        assert task.prompt
        assert not any(part.target for part in task.prompt)


def test_voxtlm_has_its_four_symbols_and_no_other_token() -> None:
    tokens = {part.name for task in VOXTLM for part in task.parts if part.kind == "token"}
    assert tokens - {"<eos>"} == {
        *("<startofspeech>", "<generatetext>", "<startoftext>", "<generatespeech>")
    }


def test_polyspeech_reads_continuous_speech() -> None:
    assert {task.name for task in POLYSPEECH if "features" in task.fields} == {"asr", "lid", "gid"}


def test_the_output_is_the_last_field_of_the_target() -> None:
    chained = DecoderTask(
        name="chain",
        template="<bos> {units} <sep> [ {text} <sep> {translation} <eos> ]",
        emits=("text",),
        metric="bleu",
    )
    assert chained.output == "translation"
    assert chained.fields == ("units", "text", "translation")


def test_a_target_may_have_gaps() -> None:
    task = DecoderTask(
        name="gap", template="<bos> [ {text} ] <sep> [ {units} <eos> ]", emits=(), metric="units"
    )
    assert [part.target for part in task.parts] == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("<bos> {units} <eos>", "no target"),
        ("[ {units} <eos> ]", "must stand before"),
        ("<bos> [ {units} <eos>", r"\[ without \]"),
        ("<bos> {units} ] <eos>", r"\] without its partner"),
        ("<bos> [ [ {units} ] ]", r"\[ without its partner"),
        ("<bos> [ {phones} ]", "'{phones}' is neither"),
        ("<bos> [ units ]", "'units' is neither"),
    ],
)
def test_a_template_that_cannot_work(template: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        dataclasses.replace(ASR, template=template)


def test_select_keeps_the_order_of_the_table() -> None:
    assert [task.name for task in select(TASKS, ["mt", "asr"])] == ["asr", "mt"]
    with pytest.raises(ConfigError, match="no task 'vc'; the table has asr, tts"):
        select(TASKS, ["vc"])


def test_rows_of_a_file_by_the_names_of_before(tmp_path: Path) -> None:
    row = {"name": "x", "template": "<bos> {sample} <sep> [ {units} <eos> ]", "emits": ["unit"]}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**row, "metric": "units", "check": "asr", "sample_tokens": 7}]))
    (read,) = template.read(path)
    assert (read.fields, read.rerank, read.prompt_tokens) == (("prompt_units", "units"), "asr", 7)
    path.write_text(json.dumps([{**row, "metric": "units", "tokens": 7}]))
    with pytest.raises(ConfigError, match=r"rows\.json: row 0: unknown field 'tokens'"):
        template.read(path)


@pytest.mark.parametrize("task", [*TASKS, *VOXTLM])
def test_a_row_survives_json(task: DecoderTask) -> None:
    assert from_dict(DecoderTask, to_dict(task), where="here") == task
