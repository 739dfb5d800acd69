import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from unitone.errors import ConfigError, CorpusError
from unitone.eval.pairs import (
    Hypothesis,
    coverage,
    pair,
    read_hypotheses,
    read_references,
)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def hypothesis(name: str, **values: Any) -> Hypothesis:
    fields: dict[str, Any] = {"task": None, "to": None, "text": "x", "label": None}
    return Hypothesis(id=name, **{**fields, "truncated": False, **values})


def test_a_hypothesis_as_it_is_written(tmp_path: Path) -> None:
    row = {"id": "a", "task": "st", "to": "de", "text": "ja", "label": None, "units": [1, 2]}
    path = lines(tmp_path / "h.jsonl", {**row, "score": -1.5, "truncated": True})
    assert read_hypotheses(path, command="eval.bleu") == [
        hypothesis("a", task="st", to="de", text="ja", truncated=True),
    ]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "text": "x"}\n'))
    assert [one.id for one in read_hypotheses(path, command="eval.wer")] == ["a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no hypotheses in it; did the decoding finish"),
        ("\n \n", "no hypotheses in it"),
        ('{"id": "a", "text": "x"}\n{"id": "b", "te', "line 2 is not JSON .* cut off"),
        ("[1]", "line 1 is a JSON list, not an object"),
        ('{"text": "x"}', 'field "id" must be a text, got None'),
        ('{"id": true}', 'field "id" must be a text, got True'),
        ('{"id": "a", "text": 3}', 'field "text" must be a text or null, got 3'),
        ('{"id": "a", "truncated": "no"}', 'field "truncated" must be true or false'),
        ('{"id": "a", "text": "\\ud800"}', "line 1 is not JSON"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=problem) as caught:
        read_hypotheses(path, command="eval.wer")
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(b'{"id": "\xff"}')
    with pytest.raises(CorpusError, match="is damaged"):
        read_hypotheses(path, command="eval.wer")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (partial(read_hypotheses, command="eval.wer"), read_references):
        with pytest.raises(ConfigError, match="no such file"):
            read(tmp_path / "none.jsonl")


def test_plain_references_need_no_audio_and_keep_every_field(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", {"id": 7, "text": "x", "room": "b", "noise": None})
    (one,) = read_references(path)
    assert one.id == "7"
    assert (one.group("room"), one.group("noise")) == ("b", "(none)")


def test_a_corpus_is_a_reference(tiny_corpus: Path) -> None:
    rows = read_references(tiny_corpus / "manifest.jsonl", split="train")
    assert all(one.fields["split"] == "train" for one in rows)


def test_other_forms_of_manifests_are_read(tmp_path: Path) -> None:
    nemo = lines(tmp_path / "n.jsonl", {"audio_filepath": "a.wav", "text": "x", "lang": "en"})
    (one,) = read_references(nemo)
    assert (one.id, one.fields["text"], one.fields["language"]) == ("a", "x", "en")


def test_a_line_of_another_form_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    nemo = lines(tmp_path / "n.jsonl", {"audio_filepath": "a.wav"}, {"audio_filepath": 3})
    with pytest.raises(CorpusError, match="line 2"):
        read_references(nemo)


def test_an_unknown_split_names_the_known_ones(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", {"id": "a", "split": "dev"}, {"id": "b", "split": "test"})
    assert [one.id for one in read_references(path, split="dev")] == ["a"]
    with pytest.raises(ConfigError, match=r"--split tset: .* there are dev, test"):
        read_references(path, split="tset")


def test_empty_and_repeated_references_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no references in it"):
        read_references(lines(tmp_path / "r.jsonl"))
    with pytest.raises(CorpusError, match=r"1 id comes \(a\) more than once"):
        read_references(lines(tmp_path / "r.jsonl", {"id": "a"}, {"id": "a"}))


def references(path: Path, *names: str) -> dict[tuple[str, ...], Any]:
    rows = read_references(lines(path / "r.jsonl", *({"id": name} for name in names)))
    return {(one.id,): one for one in rows}


def test_pairs_stand_in_the_order_of_the_references(tmp_path: Path) -> None:
    said = [(("b",), hypothesis("b")), (("a",), hypothesis("a"))]
    pairs = pair(references(tmp_path, "a", "b"), said, where=tmp_path)
    assert [one.key for one in pairs] == [("a",), ("b",)]
    assert all(one.hypothesis is not None for one in pairs)


def test_missing_extra_and_repeated_ids_are_errors_that_name_them(tmp_path: Path) -> None:
    known = references(tmp_path, *"abcdef")
    with pytest.raises(CorpusError, match=r"no hypothesis for 5 references \(b, c, d, …\)"):
        pair(known, [(("a",), hypothesis("a"))], where=tmp_path)
    with pytest.raises(CorpusError, match=r"1 hypothesis \(z\) of no reference"):
        pair(known, [(("z",), hypothesis("z"))], where=tmp_path, allow_missing=True)
    with pytest.raises(CorpusError, match=r"1 id comes \(a\) more than once"):
        pair(known, [(("a",), hypothesis("a"))] * 2, where=tmp_path, allow_missing=True)


def test_allowed_missing_ones_are_counted(tmp_path: Path) -> None:
    said = [(("a",), hypothesis("a", truncated=True))]
    pairs = pair(references(tmp_path, "a", "b"), said, where=tmp_path, allow_missing=True)
    found = coverage(pairs)
    assert (found.utterances, found.missing, found.truncated) == (2, 1, 1)
    assert pairs[1].hypothesis is None


def test_hypotheses_of_another_task_are_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "h.jsonl", {"id": "b", "text": "x"}, {"id": "a", "task": "mt"})
    for command in ("eval.wer", "eval.classify", "eval.judge"):
        with pytest.raises(ConfigError, match=r"of task 'mt' \(a\); use python -m eval.bleu"):
            read_hypotheses(path, command=command)
    assert len(read_hypotheses(path, command="eval.bleu")) == 2
