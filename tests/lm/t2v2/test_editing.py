"""Edits: what changes is said, what doesn't stays to the unit, at the ends too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.conftest import WORDS as LEXICON
from tests.lm.conftest import World
from tests.lm.t2v2.conftest import TABLE
from unitone.errors import ConfigError, CorpusError
from unitone.lm import decode, family, inference
from unitone.lm.family import LoadedModel
from unitone.lm.predictor import Prediction, predict_all
from unitone.lm.t2v2.editing import change
from unitone.lm.t2v2.options import DecodingConfig

KINDS = ("substitute", "insert", "delete")
PLACES = ("first", "middle", "last")


def spell(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", "ignore")


@pytest.fixture(scope="session")
def loaded(learnt: Path) -> LoadedModel:
    return family.load(learnt / "last", device="cpu")


def edited(text: str, kind: str, place: str, new: str) -> str:
    words = text.split()
    at = {"first": 0, "middle": 1, "last": len(words) - (kind != "insert")}[place]
    words[at : at + (kind != "insert")] = [] if kind == "delete" else [new]
    return " ".join(words)


texts = st.lists(st.sampled_from(["a", "bc", "é", "dé"]), min_size=1, max_size=5).map(" ".join)


@given(old=texts, new=texts)
def test_a_change_is_of_whole_words_and_the_smallest(old: str, new: str) -> None:
    ids_old, ids_new = [*old.encode()], [*new.encode()]
    found = change(ids_old, ids_new, spell)
    assert ids_old[: found.first] == ids_new[: found.first]
    assert ids_old[found.last_old :] == ids_new[found.last_new :]
    for ids in (ids_old[: found.first], ids_old[found.last_old :]):
        assert "".join(spell(ids).split()) in ("".join(old.split()), *_parts(old))
    if old == new:
        assert (found.last_old, found.last_new) == (found.first, found.first)


def _parts(text: str) -> list[str]:
    words = text.split()
    heads = ["".join(words[:count]) for count in range(len(words) + 1)]
    return heads + ["".join(words[count:]) for count in range(len(words) + 1)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_edits_say_the_new_words_and_leave_the_rest(
    loaded: LoadedModel, kind: str, place: str
) -> None:
    editor: Any = loaded.predictor("edit", config=DecodingConfig(temperature=0.0))
    requests, wanted = [], []
    for number, row in enumerate(TABLE):
        lexicon = LEXICON[row["language"]]
        new = next(one for one in lexicon[number % 4 :] + lexicon if one not in row["text"])
        wanted.append(edited(row["text"], kind, place, new))
        requests.append(editor.request(loaded.fields.record(row | {"edited": wanted[-1]})))
    found = predict_all(editor, requests)
    heard = texts_of(loaded, found)
    for row, one in zip(TABLE, found, strict=True):
        assert one.units is not None
        assert one.span is not None
        start, end = one.span
        tail = len(one.units) - end
        assert one.units[:start].tolist() == row["units"][:start]
        assert one.units[end:].tolist() == row["units"][len(row["units"]) - tail :]
        if kind == "delete":
            assert len(one.units) < len(row["units"])
    if kind != "insert":  # sentences of three words were never heard
        right = [a == b for a, b in zip(heard, wanted, strict=True)]
        assert np.mean(right) >= 0.8


def texts_of(loaded: LoadedModel, found: list[Prediction]) -> list[str | None]:
    asr: Any = loaded.predictor("asr")
    rows = [{"id": "x", "units": one.units} for one in found]
    return [
        one.text
        for one in predict_all(asr, [asr.request(loaded.fields.record(row)) for row in rows])
    ]


def test_the_same_text_changes_nothing(loaded: LoadedModel) -> None:
    editor: Any = loaded.predictor("edit")
    row = TABLE[0]
    (found,) = editor.predict([editor.request(loaded.fields.record(row | {"edited": row["text"]}))])
    assert found.units.tolist() == row["units"]
    assert found.span == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edited": " "}, "r0: has no edited, which task edit needs"),
        ({"edited": None}, "r0: has no edited"),
        ({"text": "", "edited": "one"}, "r0: has no text"),
        (
            {"text": "one " * 9, "edited": "two"},
            "r0: 36 tokens of text are more than its 12 frames",
        ),
        ({"edited": "one " * 999}, r"r0: 12 frames, 3996 tokens, the model's context is 1024"),
    ],
)
def test_edits_that_cannot_be_are_refused(
    loaded: LoadedModel, changes: dict[str, Any], message: str
) -> None:
    editor: Any = loaded.predictor("edit")
    with pytest.raises(CorpusError, match=message):
        editor.request(loaded.fields.record(TABLE[0] | changes))


def test_hypotheses_are_edited(
    learnt: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = tmp_path / "edits.jsonl"
    lines = [{"id": row["id"], "text": row["text"].split()[1]} for row in TABLE[:3]]
    edits.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    out = tmp_path / "h.jsonl"
    run = ["--model", str(learnt / "last"), "--tokens", str(learnt.parent / "tokens")]
    run += ["--task", "edit", "--out", str(out), "--device", "cpu"]
    assert decode.main([*run, "--edits", str(edits)]) == 0
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in found] == ["r0", "r1", "r2"]  # the others have no edit
    for line, row in zip(found, TABLE, strict=False):
        assert line["units"] == row["units"][3:]  # the second word; nothing is new
        assert line["span"][0] == line["span"][1]
    assert decode.main(run) == 2
    assert "--edits goes with --task edit" in capsys.readouterr().err
    edits.write_text("[1]\n", encoding="utf-8")
    assert decode.main([*run, "--edits", str(edits)]) == 2
    assert "expected JSON lines with id and text" in capsys.readouterr().err
    run[1], run[3] = str(world.model), str(world.tokens)
    assert decode.main([*run, "--edits", str(edits)]) == 2
    assert "no task 'edit'" in capsys.readouterr().err


def test_recordings_are_edited(world: World, spoken: Path) -> None:
    model = inference.load(spoken, device="cpu")
    recording = world.manifest.parent / "3.wav"
    plain = model._row(recording)["units"]
    found = model.edit(recording, text="sentence 3", edited="a sentence 3", speaker="ann")
    assert found.units is not None
    assert found.span is not None
    start, end = found.span
    assert found.units[:start].tolist() == plain[:start].tolist()
    assert found.units[end:].tolist() == plain[len(plain) - (len(found.units) - end) :].tolist()
    with pytest.raises(ConfigError, match="no speaker 'zoe'"):
        model.edit(recording, text="sentence 3", edited="x", speaker="zoe")
