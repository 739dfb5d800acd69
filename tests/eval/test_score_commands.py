"""The three commands from files to files."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from unitone.eval import bleu, classify, wer

ROWS = [
    {"id": "1", "text": "two dogs play", "language": "en", "split": "test", "speaker": "ann"},
    {"id": "2", "text": "zwei Hunde", "language": "de", "split": "test", "speaker": "bob"},
    {
        "id": "3",
        "text": "a <b>cat</b> & mouse",
        "language": "en",
        "split": "test",
        "speaker": "ann",
    },
    {"id": "4", "text": "unused", "language": "en", "split": "train", "speaker": "ann"},
]
SAID = ["two dogs play", "zwei Hunde da", "a dog"]
TRANSLATIONS = [
    {"de": "zwei Hunde spielen im Park", "fr": "deux chiens jouent"},
    {"en": "two dogs are in the park"},
    {"de": "eine Katze und eine Maus", "fr": "un chat et une souris"},
    {},
]
VOID = {"meta", "br", "path", "use", "image"}
Main = Callable[[list[str]], int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{**row, "translation": found} for row, found in zip(ROWS, TRANSLATIONS, strict=True)]
    write(tmp_path / "ref.jsonl", rows)
    write(
        tmp_path / "asr.jsonl",
        [
            {"id": row["id"], "task": "asr", "text": text, "truncated": row["id"] == "3"}
            for row, text in zip(ROWS[:3], SAID, strict=True)
        ],
    )
    exact = [{"id": row["id"], "task": "asr", "text": row["text"]} for row in ROWS[:3]]
    write(tmp_path / "exact.jsonl", exact)
    write(
        tmp_path / "mt.jsonl",
        [
            {"id": row["id"], "task": "mt", "to": to, "text": text.replace("Hunde", "Katzen")}
            for row, found in zip(ROWS, TRANSLATIONS, strict=True)
            for to, text in found.items()
        ],
    )
    labels = [
        {"id": name, "task": "lid", "label": label}
        for name, label in zip("123", ("en", "de", "de"), strict=True)
    ]
    write(tmp_path / "lid.jsonl", labels)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def options(folder: Path, name: str, *more: str) -> list[str]:
    given = ["--ref", str(folder / "ref.jsonl"), "--hyp", str(folder / f"{name}.jsonl")]
    return [*given, "--split", "test", "--out", str(folder / "out"), *more]


def result(folder: Path, name: str) -> Any:
    return json.loads((folder / "out" / f"{name}.json").read_text(encoding="utf-8"))


class Balance(HTMLParser):
    """Collects the tags left open, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked_page(folder: Path, name: str) -> str:
    page = (folder / "out" / f"{name}.html").read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not [one for one in parser.addresses if not one.startswith(("#", "data:"))]
    assert len(parser.ids) == len(set(parser.ids))
    assert "<script" not in page
    assert "url(http" not in page
    assert "#0101" not in page  # a color that the theme can't change
    return page


def test_wer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    against = ("--against", str(folder / "exact.jsonl"), "--by", "language", "speaker")
    assert wer.main(options(folder, "asr", *against, "--normalizer", "none")) == 0
    found = result(folder, "wer")
    assert found["words"] == {
        "reference": 9,
        "hits": 6,
        "substitutions": 1,
        "deletions": 2,
        "insertions": 1,
    }
    assert found["wer"] == pytest.approx(4 / 9)
    assert found["wer_interval"]["low"] <= found["wer"] <= found["wer_interval"]["high"]
    assert found["groups"]["language"]["de"]["wer"] == 0.5
    assert set(found["groups"]["speaker"]) == {"ann", "bob"}
    assert found["truncated"] == 1
    assert found["other"]["wer"] == 0.0
    assert found["comparison"]["wer"]["difference"] == pytest.approx(4 / 9)
    assert "norm:none.1" in found["signature"]
    page = checked_page(folder, "wer")
    assert "Word error rate 44.44 %" in page
    assert "&lt;b&gt;cat&lt;/b&gt;" in page
    assert "<b>cat" not in page
    assert "1 hypotheses were cut off" in page
    shown = capsys.readouterr().out
    assert re.search(r"^all +44\.44 ", shown, re.MULTILINE)
    assert "language=de" in shown
    assert "no difference shown" in shown
    rows = (folder / "out" / "utterances.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[1])["insertions"] == 1


def test_the_same_files_give_the_same_page(folder: Path) -> None:
    pages = []
    for _ in range(2):
        assert wer.main(options(folder, "asr", "--by", "language")) == 0
        pages.append(checked_page(folder, "wer"))
    assert pages[0] == pages[1]


def test_everything_right_says_how_wrong_it_may_still_be(folder: Path) -> None:
    assert wer.main(options(folder, "exact")) == 0
    assert result(folder, "wer")["wer"] == 0
    assert "Without a single error" in checked_page(folder, "wer")


def test_a_language_without_spaces_is_read_by_characters(folder: Path) -> None:
    write(folder / "ref.jsonl", [{"id": "1", "text": "今日は良い天気", "split": "test"}])
    write(folder / "zh.jsonl", [{"id": "1", "text": "今日は悪い天気"}])
    assert wer.main(options(folder, "zh")) == 0
    assert "<h1>Character error rate 14.29 %</h1>" in checked_page(folder, "wer")


def test_missing_hypotheses_never_help(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "some.jsonl", [{"id": "1", "text": "two dogs play"}])
    assert wer.main(options(folder, "some")) == 1
    assert "no hypothesis for 2 references (2, 3)" in capsys.readouterr().err
    assert wer.main(options(folder, "some", "--allow-missing")) == 0
    found = result(folder, "wer")
    assert (found["missing"], found["words"]["deletions"]) == (2, 7)
    assert "2 references have no hypothesis" in checked_page(folder, "wer")


def test_bleu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    against = ("--against", str(folder / "mt.jsonl"), "--by", "to", "languages", "speaker")
    assert bleu.main(options(folder, "mt", *against)) == 0
    found = result(folder, "bleu")
    assert found["sentences"] == 5
    assert set(found["groups"]["languages"]) == {"de → en", "en → de", "en → fr"}
    assert found["groups"]["to"]["en"]["bleu"] == pytest.approx(100)
    assert found["bleu"] < 100
    assert found["comparison"]["bleu"]["p_value"] == 1.0
    assert "|tok:13a|" in found["signature"]
    assert "zwei" in checked_page(folder, "bleu")
    assert "languages=en → fr" in capsys.readouterr().out


def test_bleu_over_several_languages_is_parted_unasked(folder: Path) -> None:
    assert bleu.main(options(folder, "mt")) == 0
    assert set(result(folder, "bleu")["groups"]) == {"languages"}


def test_classify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    against = ("--against", str(folder / "lid.jsonl"), "--by", "speaker")
    assert classify.main(["--field", "language", *options(folder, "lid", *against)]) == 0
    found = result(folder, "classify")
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["confusion"] == [[1, 0], [1, 1]]
    assert found["classes"]["en"]["recall"] == 0.5
    assert found["comparison"]["accuracy"]["p_value"] == 1.0
    page = checked_page(folder, "classify")
    assert "Accuracy of language 66.67 %" in page
    assert 'aria-label="Confusion matrix"' in page
    assert re.search(r"^all +66\.67 ", capsys.readouterr().out, re.MULTILINE)


LID = ("--field", "gender")


@pytest.mark.parametrize(
    ("main", "name", "more", "status", "problem"),
    [
        (wer.main, "mt", (), 2, "of task 'mt' (1); use python -m eval.bleu"),
        (wer.main, "lid", (), 2, "use python -m eval.classify"),
        (bleu.main, "asr", (), 2, "use python -m eval.wer"),
        (classify.main, "asr", ("--field", "language"), 2, "use python -m eval.wer"),
        (classify.main, "lid", ("--field", "gender"), 2, "use --field language"),
        (classify.main, "lid", ("--field", "age"), 2, "no reference has a field 'age'"),
        (wer.main, "asr", ("--by", "dialect"), 2, "no reference has a field 'dialect'"),
        (wer.main, "asr", ("--together", "dialect"), 2, "no reference has a field 'dialect'"),
        (wer.main, "none", (), 2, "none.jsonl: no such file"),
        (wer.main, "asr", ("--resamples", "5"), 2, "at least 100 resamples"),
    ],
)
def test_what_cannot_work_is_said(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    main: Main,
    name: str,
    more: tuple[str, ...],
    status: int,
    problem: str,
) -> None:
    try:
        got = main(options(folder, name, *more))
    except SystemExit as stop:  # the command line's own errors end that way
        got = int(stop.code or 0)
    assert got == status
    assert problem in " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": "1", "text": "x"}, 'hypothesis 1 has no "to"'),
        ({"id": "1", "to": "de", "text": None}, 'hypothesis 1 to de has no "text"'),
        ({"id": "1", "to": "es", "text": "x"}, "no such translation, only into de, fr"),
        ({"id": "9", "to": "de", "text": "x"}, "1 hypothesis (9 to de) of no reference"),
    ],
)
def test_translations_that_do_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], problem: str
) -> None:
    write(folder / "bad.jsonl", [row])
    assert bleu.main(options(folder, "bad")) == 1
    assert problem in capsys.readouterr().err


def test_hypotheses_without_a_text_or_label(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "bad.jsonl", [{"id": "1", "text": None}])
    assert wer.main(options(folder, "bad")) == 1
    assert 'hypothesis 1 has no "text"' in capsys.readouterr().err
    assert classify.main(["--field", "language", *options(folder, "bad")]) == 1
    assert 'no hypothesis has a "label"' in capsys.readouterr().err


def test_files_of_the_user_are_not_written_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "scores"
    out.mkdir()
    (out / "utterances.jsonl").write_text("mine")
    words = ["--ref", str(folder / "ref.jsonl"), "--split", "test", "--out", str(out)]
    asr = [*words, "--hyp", str(folder / "asr.jsonl")]
    assert wer.main(asr) == 2
    assert "holds utterances.jsonl, which is not ours" in capsys.readouterr().err
    assert (out / "utterances.jsonl").read_text() == "mine"
    (out / "utterances.jsonl").rename(out / "notes.jsonl")
    for _ in range(2):
        assert wer.main(asr) == 0
