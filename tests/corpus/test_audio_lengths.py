"""Samples are believed, not headers; and both have to agree with the manifest's duration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.corpus import audio, lengths
from unitone.corpus.audio import Clip
from unitone.corpus.corpus import read_corpus
from unitone.corpus.cuts import CutsConfig, write_cuts
from unitone.corpus.reading import ReadingConfig
from unitone.corpus.waveforms import load
from unitone.errors import CorpusError

Speech = Callable[..., np.ndarray]


def without_first_frame(path: Path) -> None:
    """Take the Xing frame, which says how long a file of variable bit rate is, from an MP3."""
    data = path.read_bytes()
    size = data.find(data[:2], 4)
    path.write_bytes(data[size:])


@pytest.fixture
def mp3(tmp_path: Path, speech: Speech) -> Path:
    if "MP3" not in soundfile.available_formats():
        pytest.skip("needs a libsndfile with MP3")
    path = tmp_path / "a.mp3"
    quiet = np.zeros(16_000 * 12, np.float32)
    samples = np.concatenate([speech(4.0), 1e-3 * speech(4.0, 1), quiet, speech(4.0, 2)])
    soundfile.write(path, samples, 16_000, format="MP3", bitrate_mode="VARIABLE")
    return path


def test_frames_of_an_mp3_are_counted(mp3: Path) -> None:
    assert abs(lengths.num_samples(mp3) - 24 * 16_000) < 4 * 1152
    assert len(audio.read(Clip(path=mp3))) == pytest.approx(24 * 16_000, abs=2 * 1152)


def test_an_mp3_whose_length_is_guessed_is_listed(mp3: Path) -> None:
    without_first_frame(mp3)
    with pytest.raises(CorpusError, match="its frames hold"):
        audio.read(Clip(path=mp3))


def test_a_recording_of_another_length_than_stated_is_listed(
    tmp_path: Path, speech: Speech
) -> None:
    soundfile.write(tmp_path / "a.wav", speech(2.0), 16_000)
    lines = [{"id": str(s), "audio": "a.wav", "duration": s} for s in (2.0, 2.05, 10.0, 0.5, 0)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [load(one, longest=10**6) for one in read_corpus(tmp_path / "m.jsonl").utterances]
    assert [one.error is None for one in found] == [True, True, False, False, True]
    assert "holds 2.00 s, the manifest says 10" in str(found[2].error)


def test_a_file_cut_off_after_its_header_is_listed(tmp_path: Path, speech: Speech) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, speech(4.0), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CorpusError):
        audio.read(Clip(path=path))


def with_length(path: Path, seconds: float) -> None:
    """Make the header of a file of 10 s at 16 kHz, 16 bit, say another length."""
    data = path.read_bytes()
    order, more = {".wav": ("little", 0), ".aiff": ("big", 8), ".au": ("big", 0)}[path.suffix]
    old, new = (
        (round(s * 32_000) + more).to_bytes(4, "big" if order == "big" else "little")
        for s in (10.0, seconds)
    )
    assert data.count(old, 0, 100) == 1
    path.write_bytes(data[:100].replace(old, new) + data[100:])


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au"])
@pytest.mark.parametrize("clip", [{}, {"start": 0.5, "duration": 0.25}])
def test_a_header_that_says_another_length_than_the_file_has_is_listed(
    tmp_path: Path, speech: Speech, name: str, clip: dict[str, Any]
) -> None:
    path = tmp_path / name
    for said in (1.0, 20.0):
        soundfile.write(path, speech(10.0), 16_000, subtype="PCM_16")
        assert len(audio.read(Clip(path=path))) == 160_000
        with_length(path, said)
        with pytest.raises(CorpusError, match=rf"header says {said:.2f} s, the file holds 10.00 s"):
            audio.read(Clip(path=path, **clip))


def test_chunks_after_the_samples_are_no_samples(tmp_path: Path, speech: Speech) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(2.0)[:-1], 16_000, subtype="PCM_U8")  # odd: a byte of padding
    extra = b"LIST" + (40_000).to_bytes(4, "little") + bytes(40_000)
    path.write_bytes(path.read_bytes() + extra + b"id3 " + (3).to_bytes(4, "little") + b"abc\0")
    assert len(audio.read(Clip(path=path))) == 31_999


@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_length_that_a_pipe_left_open_is_that_of_the_file(
    tmp_path: Path, speech: Speech, length: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(2.0), 16_000, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[:40] + length.to_bytes(4, "little") + data[44:])
    assert len(audio.read(Clip(path=path))) == 32_000


def test_segments_that_lie_in_no_recording_are_listed_by_cuts(
    tmp_path: Path, speech: Speech
) -> None:
    soundfile.write(tmp_path / "a.wav", speech(2.0), 16_000)
    lines = [
        {"id": "good", "audio": "a.wav", "start": 0.5, "duration": 1.0},
        {"id": "empty", "audio": "a.wav", "start": 0.5, "duration": 0},
        {"id": "late", "audio": "a.wav", "start": 2.5, "duration": 1.0},
        {"id": "long", "audio": "a.wav", "start": 0.5, "duration": 5.0},
        {"id": "channel", "audio": "a.wav", "channel": 3},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "cuts.jsonl"
    write_cuts(CutsConfig(out=out, reading=ReadingConfig(manifest=tmp_path / "m.jsonl")))
    assert [one.id for one in read_corpus(out).utterances] == ["good"]
    skipped = (tmp_path / "cuts.jsonl.skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in skipped} == {"empty", "late", "long", "channel"}


def with_frames(data: bytes, frames: int) -> bytes:
    """Make the header of a FLAC file say another number of samples, of 36 bits."""
    head = int.from_bytes(data[18:26], "big")
    return data[:18] + (head >> 36 << 36 | frames).to_bytes(8, "big") + data[26:]


def broken(path: Path, speech: Speech, how: str) -> None:
    """Write 10 s in the form that the name says, and break the file."""
    form = {".nist": "NIST", ".voc": "VOC", ".avr": "AVR", ".svx": "SVX", ".mat": "MAT5"}
    subtype = "OPUS" if path.suffix == ".opus" else None
    kind = "OGG" if subtype else form.get(path.suffix)
    soundfile.write(path, speech(10.0), 16_000, format=kind, subtype=subtype)
    assert len(audio.read(Clip(path=path))) == 160_000
    data = path.read_bytes()
    half = len(data) // 2
    if how == "few":
        data = with_frames(data, 40_000)
    elif how == "open":
        data = with_frames(data, 0)
    elif how == "twice":
        data += data
    elif how == "hole":
        page = data.index(b"OggS", half)
        data = data[:page] + data[data.index(b"OggS", page + 1) :]
    elif how == "short length":  # of CAF: a chunk's name, and eight bytes
        place = data.rindex(b"data\0\0\0\0") + 4
        length = int.from_bytes(data[place : place + 8], "big")
        data = data[:place] + (length // 2).to_bytes(8, "big") + data[place + 8 :]
    elif how == "last page":
        data = data[: data.rindex(b"OggS")]
    else:
        data = data[:half]
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "how", "why"),
    [
        ("a.flac", "few", "its header says 40,000 samples, its frames hold 160,000"),
        ("a.flac", "open", "doesn't say its length"),
        ("a.flac", "twice", "holds several streams"),
        ("a.flac", "half", "its header says 160,000 samples, its frames hold"),
        ("a.ogg", "half", "cut off: its last page"),
        ("a.ogg", "last page", "cut off: its last page"),
        ("a.ogg", "hole", "a part is missing in the middle"),
        ("a.ogg", "twice", "holds several streams"),
        ("a.opus", "half", "cut off: its last page"),
        ("a.w64", "half", "cut off"),
        ("a.caf", "short length", r"header says 5.00 s, the file holds 10.00 s"),
        ("a.nist", "half", r"header says 10.00 s, the file holds 4.98 s: it is cut off"),
        ("a.voc", "half", "cut off"),
        ("a.avr", "half", "cut off"),
        ("a.svx", "half", "cut off"),
        ("a.mat", "half", "cut off"),
    ],
)
def test_a_file_of_which_less_would_be_read_is_listed(
    tmp_path: Path, speech: Speech, name: str, how: str, why: str
) -> None:
    broken(tmp_path / name, speech, how)
    with pytest.raises(CorpusError, match=why):
        audio.read(Clip(path=tmp_path / name))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.02, 0.3, 3.0])
def test_flac_and_ogg_that_are_whole_are_read(
    tmp_path: Path, speech: Speech, rate: int, channels: int, seconds: float
) -> None:
    frames = round(seconds * rate)
    wave = np.resize(speech(1.0), (frames, channels))
    for name, level in (("a.flac", None), ("b.flac", 1.0), ("c.ogg", None)):
        soundfile.write(tmp_path / name, wave, rate, compression_level=level)
        found = audio.read(Clip(path=tmp_path / name), rate=rate)
        assert len(found) == frames


def test_tags_around_flac_are_no_samples(tmp_path: Path, speech: Speech) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, speech(2.0), 16_000)
    path.write_bytes(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + path.read_bytes() + b"TAG" + bytes(125))
    assert len(audio.read(Clip(path=path))) == 32_000
