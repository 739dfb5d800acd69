"""Hypotheses and references in the forms of other toolkits."""

import gzip
import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from unitone.errors import ConfigError, CorpusError
from unitone.eval import bleu, wer
from unitone.eval.pairs import Hypothesis, pair_by_id, read_hypotheses, read_references

NFC = unicodedata.normalize("NFC", "café-1")
NFD = unicodedata.normalize("NFD", "café-1")


def file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(path: Path, *rows: Any) -> Path:
    return file(path, "".join(json.dumps(row) + "\n" for row in rows))


def texts(path: Path) -> dict[str, str | None]:
    return {one.id: one.text for one in read_hypotheses(path, command="eval.wer")}


def test_nemo_predictions_are_read_by_the_ids_of_its_manifest(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "spoken", "pred_text": "said"},
        {"audio_filepath": "b.wav", "duration": 1.0, "offset": 2.5, "text": "x", "pred_text": ""},
    ]
    path = lines(tmp_path / "n.json", *rows)
    ids = [one.id for one in read_references(path)]
    assert texts(path) == dict(zip(ids, ["said", ""], strict=True))


def test_a_prediction_stands_before_the_text_that_was_spoken(tmp_path: Path) -> None:
    path = lines(tmp_path / "n.jsonl", {"id": "a", "text": "spoken", "pred_text": "said"})
    assert texts(path) == {"a": "said"}


def test_a_nemo_manifest_without_predictions_is_no_hypothesis(tmp_path: Path) -> None:
    path = lines(tmp_path / "n.jsonl", {"audio_filepath": "a.wav", "duration": 1, "text": "x"})
    with pytest.raises(CorpusError, match='has no "pred_text"'):
        read_hypotheses(path, command="eval.wer")


@pytest.mark.parametrize("name", ["hyp.trn", "hyp", "hyp.txt"])
def test_trn_is_read(tmp_path: Path, name: str) -> None:
    text = "two dogs (ann-001)\n(ann-002)\n\na (big) cat (bob_1)\n"
    path = file(tmp_path / name, text)
    assert texts(path) == {"ann-001": "two dogs", "ann-002": "", "bob_1": "a (big) cat"}
    assert read_references(path)[0].fields["text"] == "two dogs"


def test_comments_of_a_trn_file_are_no_lines(tmp_path: Path) -> None:
    assert texts(file(tmp_path / "h.trn", ";; made today\nyes (a)\n")) == {"a": "yes"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("yes (a)\nno\n", "line 2: .* ends with its id in parentheses"),
        ("{ a / { b / c } } (a)\n", "line 1: alternatives within alternatives"),
        ("{ a / b } " * 9 + "(a)\n", "line 1: its alternatives make more than 256 texts"),
        ("{ yes / yeah } (a)\n", 'field "text" must be a text or null'),
    ],
)
def test_a_line_of_a_trn_file_that_cannot_be_used_is_named(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(CorpusError, match=problem):
        read_hypotheses(file(tmp_path / "h.trn", text), command="eval.wer")


@pytest.mark.parametrize("name", ["text", "hyp.txt", "text_asr"])
def test_kaldis_text_is_read_with_empty_texts(tmp_path: Path, name: str) -> None:
    path = file(tmp_path / name, "ann-001 two  dogs\nann-002\nann-003\tyes (no)\n")
    assert texts(path) == {"ann-001": "two  dogs", "ann-002": "", "ann-003": "yes (no)"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hyp.txt", "utt1 he said (yes)\nutt2 no\n"),
        ("text", "utt1 he said (yes)\nutt2 so did she (no)\n"),
        ("text.gz", "utt1 he said (yes)\n"),
    ],
)
def test_a_sentence_of_kaldis_text_may_end_in_parentheses(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    expected = dict(line.split(" ", 1) for line in text.splitlines())
    assert texts(path) == expected


def test_texts_are_scored_from_file_to_file(tmp_path: Path) -> None:
    reference = file(tmp_path / "text", "a two dogs\nb a cat\n")
    hypothesis = file(tmp_path / "hyp.trn", "a cat (b)\ntwo dogs (a)\n")
    out = tmp_path / "out"
    assert wer.main(["--ref", f"{reference}", "--hyp", f"{hypothesis}", "--out", f"{out}"]) == 0
    assert json.loads((out / "wer.json").read_text())["wer"] == 0.0


@pytest.mark.parametrize(
    ("said", "errors"),
    [("two dogs", 0), ("too dogs", 0), ("dogs", 0), ("to dogs", 1), ("too cats", 1), ("", 1)],
)
def test_the_alternative_with_fewest_errors_counts(tmp_path: Path, said: str, errors: int) -> None:
    reference = file(tmp_path / "ref.trn", "{ two / too / @ } dogs (a)\n")
    hypothesis = lines(tmp_path / "hyp.jsonl", {"id": "a", "text": said})
    out = tmp_path / "out"
    assert wer.main(["--ref", f"{reference}", "--hyp", f"{hypothesis}", "--out", f"{out}"]) == 0
    words = json.loads((out / "wer.json").read_text())["words"]
    assert sum(words[kind] for kind in ("substitutions", "deletions", "insertions")) == errors


def test_a_reference_may_be_a_list_of_texts(tmp_path: Path) -> None:
    reference = lines(tmp_path / "ref.jsonl", {"id": "a", "text": ["two dogs", "2 dogs"]})
    hypothesis = lines(tmp_path / "hyp.jsonl", {"id": "a", "text": "2 dogs"})
    out = tmp_path / "out"
    assert wer.main(["--ref", f"{reference}", "--hyp", f"{hypothesis}", "--out", f"{out}"]) == 0
    assert json.loads((out / "wer.json").read_text())["wer"] == 0.0


def test_a_hypothesis_that_names_a_field_twice_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path / "hyp.jsonl", '{"id": "a", "text": "one", "text": "two"}\n')
    with pytest.raises(CorpusError, match='names the field "text" twice'):
        texts(path)


def test_an_unknown_form_names_the_option_of_this_command(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="--ref ") as caught:
        read_references(tmp_path / "empty")
    assert "--manifest" not in str(caught.value)


def hypothesis(name: str) -> Hypothesis:
    return Hypothesis(id=name, task=None, to=None, text="x", label=None, truncated=False)


def test_hypotheses_of_other_splits_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": name, "split": split} for name, split in (("a", "test"), ("b", "dev"))]
    path = lines(tmp_path / "r.jsonl", *rows)
    said = [hypothesis("b"), hypothesis("a")]
    with caplog.at_level(logging.INFO):
        pairs = pair_by_id(read_references(path, split="test"), said, where=tmp_path)
    assert [one.key for one in pairs] == [("a",)]
    assert "1 hypotheses of other references are not scored" in caplog.text
    assert len(pair_by_id(read_references(path, limit=1), said, where=tmp_path)) == 1
    with pytest.raises(CorpusError, match=r"1 hypothesis \(z\) of no reference"):
        pair_by_id(read_references(path, split="test"), [*said, hypothesis("z")], where=tmp_path)


@pytest.mark.parametrize(("left", "right"), [(NFC, NFD), (NFD, NFC)])
def test_ids_may_be_composed_or_not(tmp_path: Path, left: str, right: str) -> None:
    references = read_references(lines(tmp_path / "r.jsonl", {"id": left}))
    (found,) = pair_by_id(references, [hypothesis(right)], where=tmp_path)
    assert found.key == (left,)
    assert found.hypothesis is not None


def test_an_id_may_have_its_speaker_before_it(tmp_path: Path) -> None:
    references = read_references(lines(tmp_path / "r.jsonl", {"id": "001", "speaker": "ann"}))
    said = read_hypotheses(file(tmp_path / "h.trn", "yes (ann-001)\n"), command="eval.wer")
    (found,) = pair_by_id(references, said, where=tmp_path)
    assert found.hypothesis is not None


def test_ids_that_only_look_alike_are_spelled(tmp_path: Path) -> None:
    references = read_references(lines(tmp_path / "r.jsonl", {"id": "ﬁne-1"}, {"id": "b"}))
    said = [hypothesis("fine-1"), hypothesis("b")]
    with pytest.raises(CorpusError, match=r"'fine-1' is nearly the reference '\\ufb01ne-1'"):
        pair_by_id(references, said, where=tmp_path)


def test_a_hypothesis_that_is_left_out_needs_no_text(tmp_path: Path) -> None:
    rows = [
        {"id": name, "split": split, "text": "x"} for name, split in (("a", "test"), ("b", "dev"))
    ]
    lines(tmp_path / "r.jsonl", *rows)
    lines(tmp_path / "h.jsonl", {"id": "a", "text": "x"}, {"id": "b", "text": None})
    given = ["--ref", f"{tmp_path / 'r.jsonl'}", "--hyp", f"{tmp_path / 'h.jsonl'}"]
    assert wer.main([*given, "--split", "test"]) == 0
    assert wer.main([*given, "--limit", "1"]) == 0
    assert wer.main(given) == 1


def scored(folder: Path, *more: str) -> Any:
    given = ["--ref", f"{folder / 'r.jsonl'}", "--hyp", f"{folder / 'h.jsonl'}"]
    assert bleu.main([*given, "--out", f"{folder / 'out'}", "--split", "test", *more]) == 0
    return json.loads((folder / "out" / "bleu.json").read_text(encoding="utf-8"))


def test_several_references_and_all_scores_from_file_to_file(tmp_path: Path) -> None:
    lines(
        tmp_path / "r.jsonl",
        {
            "id": "1",
            "split": "test",
            "translation": {"de": ["ein Hund läuft weg", "der Hund läuft fort"]},
        },
        {
            "id": "2",
            "split": "test",
            "translation": ["die Katze schläft nun"],
            "translation_language": "de",
        },
        {"id": "3", "split": "train", "translation": {"de": "nichts"}},
    )
    said = ("der Hund läuft fort", "die Katze schläft nun", "etwas")
    rows = [{"id": f"{n}", "to": "de", "text": text} for n, text in enumerate(said, start=1)]
    lines(tmp_path / "h.jsonl", *rows)
    found = scored(tmp_path)
    assert found["bleu"] == pytest.approx(100)
    assert found["signature"].startswith("nrefs:var|bs:")
    assert "ter" not in found
    assert "TER" not in (tmp_path / "out" / "bleu.html").read_text(encoding="utf-8")
    other = lines(tmp_path / "o.jsonl", *({**row, "text": "der Hund"} for row in rows))
    options = ("--ter", "--chrf-words", "2", "--lowercase", "--against", f"{other}")
    found = scored(tmp_path, *options)
    assert (found["ter"], found["chrf"]) == pytest.approx((0, 100))
    assert found["comparison"]["ter"]["difference"] < 0
    assert "nw:2" in found["chrf_signature"]
    assert "chrF2++" in (tmp_path / "out" / "bleu.html").read_text(encoding="utf-8")


def test_a_translation_into_the_only_language_needs_no_code(tmp_path: Path) -> None:
    text = "今天天气很好"
    lines(tmp_path / "r.jsonl", {"id": "1", "split": "test", "translation": {"cmn": text}})
    lines(tmp_path / "h.jsonl", {"id": "1", "text": text})
    found = scored(tmp_path)
    assert found["bleu"] == pytest.approx(100)
    assert "|tok:zh|" in found["signature"]


def test_less_ter_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, text = [str(n) for n in range(12)], "der kleine Hund läuft fort"
    row = {"split": "test", "translation": {"de": text}}
    lines(tmp_path / "r.jsonl", *({**row, "id": name} for name in ids))
    lines(tmp_path / "h.jsonl", *({"id": name, "to": "de", "text": text} for name in ids))
    worse = [{"id": name, "to": "de", "text": "der große Hund"} for name in ids]
    other = lines(tmp_path / "o.jsonl", *worse)
    scored(tmp_path, "--ter", "--against", f"{other}")
    tests = [line for line in capsys.readouterr().out.splitlines() if " against " in line]
    assert len(tests) == 3
    assert all(line.endswith(": better") for line in tests)


def test_a_turkish_reference_and_ignored_spaces_from_file_to_file(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "language": "tur", "text": "Isparta"},
        {"id": "b", "language": "ko", "text": "안녕 하세요"},
    ]
    reference = lines(tmp_path / "r.jsonl", *rows)
    hypothesis = file(tmp_path / "text", "a ısparta\nb 안녕하세요\n")
    given = ["--ref", f"{reference}", "--hyp", f"{hypothesis}", "--out", f"{tmp_path}"]
    assert wer.main([*given, "--spaces", "ignore"]) == 0
    found = json.loads((tmp_path / "wer.json").read_text(encoding="utf-8"))
    assert found["cer"] == 0.0
    assert "|cer_spaces:ignore|" in found["signature"]


def test_a_list_of_what_is_not_all_text_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = lines(tmp_path / "r.jsonl", {"id": "a", "text": ["x", 3]})
    hypothesis = lines(tmp_path / "h.jsonl", {"id": "a", "text": "x"})
    assert wer.main(["--ref", f"{reference}", "--hyp", f"{hypothesis}"]) == 1
    assert "reference a must have one \"text\", got ['x', 3]" in capsys.readouterr().err
