"""Foreign manifests are read as their toolkit means them, and refused where that isn't possible."""

import json
from pathlib import Path
from typing import Any

import pytest

from unitone.corpus.corpus import Corpus, read_corpus
from unitone.corpus.utterance import Utterance
from unitone.errors import ConfigError, CorpusError


def read(folder: Path, *lines: dict[str, Any]) -> Corpus:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_corpus(path)


def read_one(folder: Path, line: dict[str, Any]) -> Utterance:
    (found,) = read(folder, line).utterances
    return found


def test_a_nemo_duration_without_an_offset_is_the_beginning_of_the_file(tmp_path: Path) -> None:
    found = read_one(tmp_path, {"audio_filepath": "a.wav", "duration": 1.25})
    assert (found.id, found.start, found.duration) == ("a", 0.0, 1.25)


def test_a_nemo_duration_of_0_is_an_unknown_one(tmp_path: Path) -> None:
    found = read_one(tmp_path, {"audio_filepath": "a.wav", "duration": 0})
    assert (found.duration, found.stated_duration) == (None, None)


def test_nemo_segments_of_one_start_are_all_read(tmp_path: Path) -> None:
    one = {"audio_filepath": "a.wav", "offset": 1.0, "duration": 0.5}
    corpus = read(tmp_path, one, one | {"duration": 0.7}, one | {"channel_selector": 1})
    ids = [found.id for found in corpus.utterances]
    assert ids == ["a-1.000", "a-1.0-0.7", "a-1.0-0.5-1"]
    assert corpus.utterances[2].channel == 1


def test_a_second_line_of_the_same_nemo_segment_is_a_duplicate(tmp_path: Path) -> None:
    one = {"audio_filepath": "a.wav", "offset": 1.0, "duration": 0.5}
    other, whole = one | {"duration": 0.7}, {"audio_filepath": "b.wav"}
    corpus = read(tmp_path, one, one, other, other, one, whole, whole)
    assert [found.id for found in corpus.utterances] == ["a-1.000", "a-1.0-0.7", "b"]
    assert [one.line for one in corpus.skipped] == [2, 4, 5, 7]
    assert all("duplicate id" in one.reason for one in corpus.skipped)


def test_a_nemo_segment_may_have_several_target_languages(tmp_path: Path) -> None:
    line = {"audio_filepath": "a.wav", "offset": 1.0, "duration": 2, "source_lang": "en"}
    targets = ("en", "de", "fr", "es")
    corpus = read(tmp_path, *(line | {"target_lang": one, "text": one} for one in targets))
    assert not corpus.skipped
    assert [found.translation for found in corpus.utterances] == [
        {}, {"de": "de"}, {"fr": "fr"}, {"es": "es"}
    ]  # fmt: skip
    assert len({found.id for found in corpus.utterances}) == 4


def test_canary_text_in_the_target_language_is_a_translation(tmp_path: Path) -> None:
    line = {"audio_filepath": "a.wav", "text": "hallo", "source_lang": "en", "target_lang": "de"}
    found = read_one(tmp_path, line)
    assert (found.text, found.language, found.translation) == (None, "en", {"de": "hallo"})
    same = read_one(tmp_path, line | {"target_lang": "en"})
    assert (same.text, same.language, same.translation) == ("hallo", "en", {})


@pytest.mark.parametrize(
    "more",
    [
        {"taskname": "ast"},
        {"target_lang": "de"},
        {"text_filepath": "a.txt"},
        {"channel_selector": [0, 1]},
        {"channel": 1},
        {"channels": 1},
        {"channels": [0, 1]},
        {"start": 1.0, "duration": 1},
        {"start_time": 1.0, "duration": 1},
        {"begin": 0, "end": 2},
        {"offset": 1.0, "duration": 0},
    ],
)
def test_what_a_nemo_line_means_and_we_cannot_do_is_listed(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    corpus = read(tmp_path, {"audio_filepath": "good.wav"}, {"audio_filepath": "a.wav"} | more)
    assert [found.id for found in corpus.utterances] == ["good"]
    assert len(corpus.skipped) == 1


def test_text_language_and_speaker_are_read_by_their_other_names(tmp_path: Path) -> None:
    line = {"id": "a", "audio": "a.wav"}
    for text in ("transcript", "transcription", "sentence"):
        found = read_one(tmp_path, line | {text: "hi", "lang": "en", "speaker_id": 19})
        assert (found.text, found.language, found.speaker) == ("hi", "en", "19")
    own = read_one(tmp_path, line | {"text": "own", "sentence": "other"})
    assert own.text == "own"
    corpus = read(tmp_path, line, line | {"id": "b", "transcript": "one", "sentence": "two"})
    assert "which of transcript, transcription, sentence" in corpus.skipped[0].reason


def test_a_field_that_a_line_names_twice_is_not_chosen_in_silence(tmp_path: Path) -> None:
    twice = ['{"id": "b", "audio": "a.wav", "text": "one", "text": "two"}']
    twice += ['{"id": "c", "audio": "a.wav", "translation": {"de": "eins", "de": "zwei"}}']
    good = '{"id": "a", "audio": "a.wav", "text": "say \\"x\\": y", "translation": {"de": "z"}}'
    (tmp_path / "m.jsonl").write_text("\n".join([good, *twice]) + "\n")
    corpus = read_corpus(tmp_path / "m.jsonl")
    assert [one.text for one in corpus.utterances] == ['say "x": y']
    assert [one.line for one in corpus.skipped] == [2, 3]
    assert 'names the field "text" twice' in corpus.skipped[0].reason


@pytest.mark.parametrize(
    "times",
    [
        {"start": 1, "duration": 0.5},
        {"offset": 1, "duration": 0.5},
        {"start": 1, "end": 1.5},
        {"offset": 1, "end": 1.5, "duration": 0.5},
    ],
)
def test_a_plain_segment_has_a_start_or_offset_and_a_duration_or_end(
    tmp_path: Path, times: dict[str, float]
) -> None:
    found = read_one(tmp_path, {"id": "a", "audio": "a.wav", "channel": 1} | times)
    assert (found.start, found.duration, found.channel) == (1.0, 0.5, 1)


@pytest.mark.parametrize(
    "times",
    [
        {"start": 1, "duration": 0},
        {"start": 1, "end": 0.5},
        {"start": 1, "duration": 1, "end": 5},
        {"start": 1, "offset": 2},
        {"start_time": 1, "end_time": 2},
        {"start_sec": 1, "end_sec": 2},
        {"offset_ms": 1000},
        {"onset": 1, "duration": 2},
        {"end_sample": 16_000},
        {"channel_id": 1},
        {"channel_selector": 1},
        {"target_lang": "de"},
    ],
)
def test_a_plain_segment_that_contradicts_itself_is_listed(
    tmp_path: Path, times: dict[str, Any]
) -> None:
    corpus = read(tmp_path, {"id": "good", "audio": "a.wav"}, {"id": "a", "audio": "a.wav"} | times)
    assert [item.id for item in corpus.skipped] == ["a"]


def test_text_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    good, bad = ({"id": name, "audio": "a.wav", "text": "grün"} for name in ("good", "bad"))
    path.write_bytes(
        json.dumps(good).encode()
        + b"\n"
        + json.dumps(bad, ensure_ascii=False).encode("cp1252")
        + b"\n"
    )
    corpus = read_corpus(path)
    assert [found.text for found in corpus.utterances] == ["grün"]
    assert "line 2 is not UTF-8 (byte 0xfc" in corpus.skipped[0].reason


def fairseq(folder: Path, words: bytes | None = None, *, ending: str = ".wrd") -> Path:
    path = folder / "train.tsv"
    path.write_text("audio\na.wav\t16000\nb.wav\t16000\n")
    if words is not None:
        path.with_suffix(ending).write_bytes(words)
    return path


@pytest.mark.parametrize("ending", [".wrd", ".ltr"])
def test_words_beside_a_tsv_belong_to_its_identity(tmp_path: Path, ending: str) -> None:
    without = read_corpus(fairseq(tmp_path)).sha256
    first = read_corpus(fairseq(tmp_path, b"A\nB\n", ending=ending)).sha256
    second = read_corpus(fairseq(tmp_path, b"A\nC\n", ending=ending)).sha256
    assert len({without, first, second}) == 3


@pytest.mark.parametrize("words", [b"A\n", b"A\nB\nC\n"])
def test_words_of_another_length_than_their_tsv_are_refused(tmp_path: Path, words: bytes) -> None:
    with pytest.raises(CorpusError, match="don't belong together"):
        read_corpus(fairseq(tmp_path, words))


def test_words_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    corpus = read_corpus(fairseq(tmp_path, b"gr\xfcn\nB\n"))
    assert [found.text for found in corpus.utterances] == ["B"]
    assert "not UTF-8" in corpus.skipped[0].reason


def test_common_voice_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(
        "client_id\tpath\tsentence\tgender\tlocale\n"
        'me\tcv_1.mp3\t"She said ""no""."\tfemale\ten\n'
        "you\tcv_2.mp3\tTwo\n"
    )
    corpus = read_corpus(path)
    (found,) = corpus.utterances
    assert (found.id, found.audio) == ("cv_1", tmp_path / "clips/cv_1.mp3")
    assert (found.text, found.speaker, found.split) == ('She said "no".', "me", "dev")
    assert (found.gender, found.language) == ("female", "en")
    assert "3 columns" in corpus.skipped[0].reason


ARRAY = [{"id": "a", "audio": "a.wav"}]
SUPERVISION = {"id": "s", "recording_id": "r", "start": 0, "duration": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", json.dumps(ARRAY).encode(), "a JSON array"),
        ("m.json", json.dumps(ARRAY, indent=2).encode(), "a JSON array"),
        ("m.json", json.dumps({"a": {"wav": "a.wav"}}).encode(), "SpeechBrain"),
        ("m.json", json.dumps({"a": {"wav": "a.wav"}}, indent=1).encode(), "SpeechBrain"),
        ("m.json", json.dumps(ARRAY[0], indent=1).encode(), "over several lines"),
        ("m.jsonl", json.dumps(SUPERVISION).encode(), "SupervisionSet"),
        ("m.jsonl", json.dumps(ARRAY[0]).encode("utf-16"), "UTF-16"),
        ("m.jsonl", b"RIFF....WAVE", "a recording"),
        ("m.jsonl", b"PAR1....", "Parquet"),
        ("m.csv", b"ID,duration,wav,spk_id,wrd\n", "a CSV file: give JSON lines"),
        ("wav.scp", b"u1 sox a.wav -t wav - |\n", "Kaldi's data: .*lhotse kaldi import"),
        ("m.tsv", b"ID\tduration\twav\na\t1\ta.wav\n", "the columns ID, duration, wav"),
    ],
)
def test_a_form_that_is_not_read_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_corpus(tmp_path / name)
