"""Every reader gives the same records; every bad line becomes a reason."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.corpus.corpus import read_corpus
from unitone.corpus.cuts import CutsConfig, write_cuts
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError, CorpusError

Speech = Callable[..., np.ndarray]


def manifest(folder: Path, *lines: object, name: str = "manifest.jsonl") -> Path:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_plain_lines_hold_every_field(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {
            "id": "a/ü 1",
            "audio": "x/a.flac",
            "text": "two dogs",
            "translation": {"de": "zwei hunde", "fr": "deux chiens"},
            "speaker": 7,
            "language": "en",
            "gender": "female",
            "duration": 1.5,
            "split": "train",
            "phones": [["t", 0.0, 0.1]],
        },
        {"id": "b", "audio": "/abs/b.wav", "translation": "zwei", "translation_language": "de"},
    )

    first, second = read_corpus(path).utterances

    assert first.id == "a/ü 1"
    assert first.audio == tmp_path / "x/a.flac"
    assert first.translation == {"de": "zwei hunde", "fr": "deux chiens"}
    assert (first.speaker, first.gender, first.split) == ("7", "female", "train")
    assert (first.duration, first.stated_duration) == (None, 1.5)
    assert first.labels == (("t", 0.0, 0.1),)
    assert second.audio == Path("/abs/b.wav")
    assert second.translation == {"de": "zwei"}


def test_nemo_lines_are_read(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"audio_filepath": "a.wav", "duration": 2.0, "text": "hi", "lang": "en"},
        {"audio_filepath": "a.wav", "duration": 0.5, "offset": 1.0, "text": "there"},
    )

    whole, part = read_corpus(path).utterances

    assert (whole.id, whole.duration, whole.language) == ("a", 2.0, "en")
    assert (part.id, part.start, part.duration) == ("a-1.000", 1.0, 0.5)


@pytest.mark.parametrize(("ending", "text"), [(".wrd", "HI THERE"), (".ltr", "H I | T H E R E |")])
def test_fairseq_tsv_is_read_with_its_words(tmp_path: Path, ending: str, text: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("audio\na/b.flac\t32000\nbroken line\nc.flac\t16000\n")
    (tmp_path / f"train{ending}").write_text(f"{text}\n{text}\nLAST\n")

    corpus = read_corpus(path)

    first, last = corpus.utterances
    assert (first.id, first.audio) == ("a/b", tmp_path / "audio/a/b.flac")
    assert (first.stated_duration, first.text) == (2.0, "HI THERE")
    assert last.text == "LAST"
    assert "line 3" in corpus.skipped[0].reason


def test_a_cutset_gives_back_what_it_was_made_from(tiny_corpus: Path, tmp_path: Path) -> None:
    source = tiny_corpus / "manifest.jsonl"
    out = tmp_path / "cuts.jsonl.gz"
    write_cuts(CutsConfig(out=out, reading=ReadingConfig(manifest=source)))

    for before, after in zip(
        read_corpus(source).utterances, read_corpus(out).utterances, strict=True
    ):
        for name in ("id", "audio", "start", "duration", "text", "speaker", "gender", "split"):
            assert getattr(before, name) == getattr(after, name), name


def test_a_cut_inside_a_stereo_recording_keeps_its_channel(tmp_path: Path, speech: Speech) -> None:
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
    from lhotse.audio import AudioSource

    samples = np.stack([speech(2.0, 1), speech(2.0, 2)], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    recording = Recording(
        id="r",
        sources=[AudioSource(type="file", channels=[0, 1], source=str(tmp_path / "a.wav"))],
        sampling_rate=16_000,
        num_samples=32_000,
        duration=2.0,
        channel_ids=[0, 1],
    )
    supervision = SupervisionSegment(
        id="s", recording_id="r", start=0, duration=1, text="hi", channel=1
    )
    cut = MonoCut(
        id="c", start=0.5, duration=1.0, channel=1, recording=recording, supervisions=[supervision]
    )
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl")

    (found,) = read_corpus(tmp_path / "cuts.jsonl").utterances

    assert (found.start, found.duration, found.channel, found.text) == (0.5, 1.0, 1, "hi")


def test_bad_lines_are_skipped_with_their_reason(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"id": "good", "audio": "a.wav"},
        "this is not JSON",
        [1, 2],
        {"audio": "a.wav"},
        {"id": "no-audio"},
        {"id": "good", "audio": "b.wav"},
        {"id": "t", "audio": "a.wav", "duration": "long"},
        {"id": "u", "audio": "a.wav", "text": 5},
        {"id": "v", "audio": "a.wav", "translation": 5},
    )

    corpus = read_corpus(path)

    assert [u.id for u in corpus.utterances] == ["good"]
    reasons = {item.line: item.reason for item in corpus.skipped}
    assert "not JSON" in reasons[2]
    assert "list" in reasons[3]
    assert '"id" is missing' in reasons[4]
    assert '"audio" is missing' in reasons[5]
    assert reasons[6] == "duplicate id, first on line 1"
    assert "'long'" in reasons[7]
    assert '"text"' in reasons[8]
    assert '"translation"' in reasons[9]
    assert [item.line for item in corpus.skipped] == list(range(2, 10))


def test_a_gzipped_manifest_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl.gz"
    line = json.dumps({"id": "a", "audio": "a.wav"})
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + line.encode()))

    assert len(read_corpus(path).utterances) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.xml", "a,b", "not a known form"),
        ("m.jsonl", '{"id": 1, "sources": [], "sampling_rate": 5}', "RecordingSet"),
    ],
)
def test_an_unknown_manifest_is_a_usage_error(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content + "\n")

    with pytest.raises(ConfigError, match=message):
        read_corpus(tmp_path / name)


def test_a_missing_and_an_empty_manifest_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")

    with pytest.raises(ConfigError, match="no such file"):
        read_corpus(tmp_path / "none.jsonl")
    with pytest.raises(CorpusError, match="no usable utterance"):
        read_corpus(tmp_path / "empty.jsonl")


def test_a_split_is_chosen_by_name(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"id": "a", "audio": "a.wav", "split": "train"},
        {"id": "b", "audio": "b.wav", "split": "test"},
    )
    corpus = read_corpus(path)

    assert [u.id for u in corpus.only("test").utterances] == ["b"]
    assert corpus.only("test").sha256 != corpus.sha256
    with pytest.raises(ConfigError, match="found test, train"):
        corpus.only("dev")


def test_cuts_are_not_written_over_what_is_no_cutset(tiny_corpus: Path, tmp_path: Path) -> None:
    manifest, notes = tiny_corpus / "manifest.jsonl", tmp_path / "notes.jsonl"
    notes.write_text('{"my": "notes"}\n')
    for out in (manifest, notes):
        before = out.read_bytes()
        with pytest.raises(ConfigError, match="is there, and no CutSet"):
            write_cuts(CutsConfig(out=out, reading=ReadingConfig(manifest=manifest)))
        assert out.read_bytes() == before
    cuts = tmp_path / "cuts.jsonl"
    for _ in range(2):
        write_cuts(CutsConfig(out=cuts, reading=ReadingConfig(manifest=manifest)))
    with pytest.raises(ConfigError, match="is there, and no CutSet"):
        write_cuts(CutsConfig(out=cuts, reading=ReadingConfig(manifest=cuts)))


@pytest.mark.parametrize("options", [{"workers": -1}, {"batch_seconds": 0.0}])
def test_options_of_reading_have_ranges(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        ReadingConfig(manifest=Path("m.jsonl"), **options)
