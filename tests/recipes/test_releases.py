"""Corpora as they are released: a miniature of each in its layout becomes the right manifest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.corpus import audio
from unitone.corpus.audio import Clip
from unitone.corpus.corpus import read_corpus
from unitone.errors import CorpusError
from unitone.recipes import an4, fsdd

Speech = Callable[..., np.ndarray]
SAMPLES = {"fash": "YES", "mblw": "X I SIXTY ONE", "mskh": "GO"}


def rows(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def write_sound(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (samples * 32_767).astype(np.int16)
    if path.suffix == ".raw":
        path.write_bytes(whole.astype(">i2").tobytes())
    else:
        kind = "NIST" if path.suffix == ".sph" else "WAV"
        soundfile.write(path, whole, audio.SAMPLE_RATE, format=kind, subtype="PCM_16")


@pytest.fixture(params=[".wav", ".sph", ".raw"])
def an4_root(request: pytest.FixtureRequest, tmp_path: Path, speech: Speech) -> Path:
    """Three speakers to learn, one in the test, as CMU unpacks them."""
    root = tmp_path / "an4"
    listed = {
        "train": [(f"an4_clstk/{who}/an1-{who}-b", text) for who, text in SAMPLES.items()],
        "test": [("an4test_clstk/fcaw/an406-fcaw-b", "RUBOUT G M E F THREE NINE")],
    }
    (root / "etc").mkdir(parents=True)
    for split, found in listed.items():
        names = "".join(f"{name}\n" for name, _ in found)
        marks = "<s> {} </s> ({})\n" if split == "train" else "{} ({})\n"
        texts = "".join(marks.format(text, Path(name).name) for name, text in found)
        (root / "etc" / f"an4_{split}.fileids").write_text(names)
        (root / "etc" / f"an4_{split}.transcription").write_text(texts)
        for number, (name, _) in enumerate(found):
            write_sound(root / "wav" / f"{name}{request.param}", speech(0.5, number))
    return root


def test_an4_becomes_a_manifest(an4_root: Path, speech: Speech) -> None:
    manifest = an4.prepare(an4_root)
    found = {row["id"]: row for row in rows(manifest)}
    assert list(found) == ["an4-an1-fash-b", "an4-an1-mblw-b", "an4-an1-mskh-b", "an4-an406-fcaw-b"]
    assert found["an4-an1-mblw-b"] | {"audio": "", "split": ""} == {
        "id": "an4-an1-mblw-b",
        "audio": "",
        "text": "X I SIXTY ONE",
        "speaker": "an4-mblw",
        "language": "en",
        "gender": "male",
        "split": "",
        "duration": 0.5,
    }
    assert found["an4-an406-fcaw-b"]["text"] == "RUBOUT G M E F THREE NINE"
    splits = sorted(row["split"] for row in found.values())
    assert splits == ["dev", "test", "train", "train"]
    (first, *_) = read_corpus(manifest).utterances
    read = audio.read(Clip(path=first.clip.path))
    assert np.abs(read - speech(0.5, 0)).max() < 1e-3
    before = manifest.read_bytes()
    assert an4.prepare(an4_root).read_bytes() == before


def test_an4_in_a_folder_that_cant_be_written(an4_root: Path, tmp_path: Path) -> None:
    before = sorted(an4_root.rglob("*"))
    manifest = an4.prepare(an4_root, tmp_path / "elsewhere" / "an4")
    assert sorted(an4_root.rglob("*")) == before
    assert len(read_corpus(manifest).utterances) == len(
        read_corpus(an4.prepare(an4_root)).utterances
    )


def test_raw_samples_of_the_other_order_of_bytes_are_the_same(
    tmp_path: Path, speech: Speech
) -> None:
    samples = (speech(0.5) * 32_767).astype(np.int16)
    for kind in (">i2", "<i2"):
        (tmp_path / "one.raw").write_bytes(samples.astype(kind).tobytes())
        np.testing.assert_array_equal(an4.raw_samples(tmp_path / "one.raw"), samples)


@pytest.mark.parametrize(
    "missing", ["etc/an4_train.fileids", "etc/an4_test.transcription", "wav/an4_clstk/mblw"]
)
def test_what_an4_has_not_is_named(an4_root: Path, missing: str) -> None:
    for path in [an4_root / missing, *(an4_root / missing).glob("*")][::-1]:
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(CorpusError, match=f"{missing}.*missing.*cmusphinx/an4"):
        an4.prepare(an4_root)
    assert not (an4_root / "manifest.jsonl").exists()


def test_an4_without_the_text_of_a_recording(an4_root: Path) -> None:
    texts = an4_root / "etc" / "an4_train.transcription"
    texts.write_text("".join(texts.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(CorpusError, match="no line for an1-fash-b"):
        an4.prepare(an4_root)


def test_fsdd_becomes_a_manifest(fsdd_root: Path) -> None:
    manifest = fsdd.prepare(fsdd_root)
    found = {row["id"]: row for row in rows(manifest)}
    assert found["fsdd-7-jackson-49"] == {
        "id": "fsdd-7-jackson-49",
        "audio": "recordings/7_jackson_49.wav",
        "text": "seven",
        "speaker": "fsdd-jackson",
        "language": "en",
        "split": "train",
        "duration": 0.5,
    }
    splits = [row["split"] for row in found.values()]
    assert splits == 2 * ["test", "test", "dev", "dev", "train", "train"]
    assert len(read_corpus(manifest).utterances) == len(found)
    before = manifest.read_bytes()
    assert fsdd.prepare(fsdd_root).read_bytes() == before


def test_what_fsdd_has_not_is_named(tmp_path: Path, fsdd_root: Path) -> None:
    with pytest.raises(CorpusError, match=r"recordings is missing.*github"):
        fsdd.prepare(tmp_path)
    for path in (fsdd_root / "recordings").glob("*_*"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"DIGIT_SPEAKER_TAKE.*github"):
        fsdd.prepare(fsdd_root)


@pytest.mark.parametrize("name", ["an4", "fsdd"])
def test_the_release_gives_the_words_of_our_own_manifest(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    """Our recordings, put back where the corpus has them, are described as they are by hand."""
    ours = {row["id"]: row for row in rows(shared_data / name / "manifest.jsonl")}
    texts: dict[str, list[str]] = {"train": [], "test": []}
    names: dict[str, list[str]] = {"train": [], "test": []}
    for row in ours.values():
        parts = row["id"].split("-")[1:]
        if name == "fsdd":
            place = tmp_path / "recordings" / f"{parts[0]}_{parts[1]}_{int(parts[2])}.wav"
        else:
            split, stem = ("test" if row["split"] == "test" else "train"), "-".join(parts)
            below = f"an4{'test' if split == 'test' else ''}_clstk/{parts[1]}/{stem}"
            names[split].append(below)
            texts[split].append(f"<s> {row['text']} </s> ({stem})")
            place = tmp_path / "wav" / f"{below}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(shared_data / name / row["audio"])  # libsndfile looks inside
    (tmp_path / "etc").mkdir()
    for split in texts:
        (tmp_path / "etc" / f"an4_{split}.fileids").write_text("\n".join(names[split]))
        (tmp_path / "etc" / f"an4_{split}.transcription").write_text("\n".join(texts[split]))
    found = {row["id"]: row for row in rows((an4 if name == "an4" else fsdd).prepare(tmp_path))}
    assert found.keys() == ours.keys()
    for key, row in found.items():
        same = ("text", "speaker", "language", *(["gender"] if "gender" in row else []))
        assert {one: row[one] for one in same} == {one: ours[key][one] for one in same}
        assert row["duration"] == pytest.approx(ours[key]["duration"], abs=1e-3)
        if name == "an4":
            assert (row["split"] == "test") == (ours[key]["split"] == "test")
