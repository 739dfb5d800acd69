"""Lhotse cuts: supervisions count from the cut, alignments from the recording; audio stays put."""

import gzip
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.supervision import AlignmentItem

from unitone.corpus import corpus
from unitone.corpus.corpus import read_corpus
from unitone.corpus.cuts import cut_of
from unitone.corpus.lhotse_cuts import utterance_of_cut
from unitone.corpus.stored_cuts import StoredCut
from unitone.corpus.utterance import Utterance
from unitone.corpus.waveforms import load
from unitone.errors import CorpusError

Speech = Callable[..., np.ndarray]


def recording(path: Path, samples: np.ndarray) -> Recording:
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return Recording(
        id=path.stem,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=16_000,
        num_samples=len(samples),
        duration=len(samples) / 16_000,
    )


def supervision(start: float, duration: float, text: str, **more: Any) -> SupervisionSegment:
    """Return one whose only phone begins half a second after it, in seconds of the recording."""
    item = AlignmentItem(symbol=text[0], start=start + 0.5, duration=0.25)
    return SupervisionSegment(
        id=text,
        recording_id="r",
        start=start,
        duration=duration,
        text=text,
        alignment={"phone": [item]},
        **more,
    )


@pytest.fixture
def whole(tmp_path: Path, speech: Speech) -> MonoCut:
    """A recording of 6 s with two speakers, in the wrong order."""
    cut = recording(tmp_path / "r.wav", speech(6.0)).to_cut()
    cut.supervisions = [
        supervision(2.0, 2.0, "second", speaker="b", language="en"),
        supervision(0.0, 2.0, "first", speaker="a", language="en"),
    ]
    assert isinstance(cut, MonoCut)
    return cut


def read_back(cuts: list[Any], folder: Path) -> list[Utterance]:
    CutSet.from_cuts(cuts).to_file(folder / "cuts.jsonl")
    return read_corpus(folder / "cuts.jsonl").utterances


def test_a_trimmed_cut_has_its_labels_where_they_sound(whole: MonoCut, tmp_path: Path) -> None:
    second, first = read_back(list(whole.trim_to_supervisions()), tmp_path)
    assert second.start == 2.0
    assert second.labels == (("s", 0.5, 0.75),)
    assert first.labels == (("f", 0.5, 0.75),)


def test_several_supervisions_are_in_order_of_time_and_differing_fields_are_null(
    whole: MonoCut, tmp_path: Path
) -> None:
    (found,) = read_back([whole], tmp_path)
    assert found.text == "first second"
    assert (found.speaker, found.language) == (None, "en")
    assert found.labels == (("f", 0.5, 0.75), ("s", 2.5, 2.75))


def test_a_window_has_no_text_of_what_goes_on_beyond_it(whole: MonoCut, tmp_path: Path) -> None:
    window = whole.truncate(offset=0.0, duration=3.0)
    (found,) = read_back([window], tmp_path)
    assert found.text is None
    assert found.labels == (("f", 0.5, 0.75), ("s", 2.5, 2.75))
    alone = whole.truncate(offset=2.0, duration=4.0, keep_excessive_supervisions=True)
    (found,) = read_back([alone], tmp_path)
    assert (found.text, found.speaker) == ("second", "b")


def test_labels_written_as_a_cut_come_back(tmp_path: Path, speech: Speech) -> None:
    soundfile.write(tmp_path / "a.wav", speech(4.0), 16_000)
    labels = (("x", 0.25, 0.5),)
    made = Utterance(
        id="a", line=1, audio=tmp_path / "a.wav", start=1.5, duration=2.0, labels=labels
    )
    (found,) = read_back([cut_of(made)], tmp_path)
    assert (found.start, found.duration, found.labels) == (1.5, 2.0, labels)


def test_a_mixed_cut_is_encoded(whole: MonoCut, tmp_path: Path, speech: Speech) -> None:
    other = recording(tmp_path / "o.wav", speech(1.0, 1)).to_cut()
    third = supervision(0.0, 1.0, "third", speaker="a", language="en")
    third.recording_id = "o"
    other.supervisions = [third]
    (found,) = read_back([whole.append(other)], tmp_path)
    assert found.text == "first second third"
    assert found.labels[-1] == ("t", 6.5, 6.75)
    waveform = load(found, longest=10**6).waveform
    assert waveform is not None
    assert np.allclose(waveform[-16_000:], speech(1.0, 1), atol=1e-4)


@pytest.mark.parametrize("packed", [True, False])
def test_positions_are_kept_and_not_audio(
    whole: MonoCut, tmp_path: Path, speech: Speech, packed: bool
) -> None:
    cuts = [whole, recording(tmp_path / "o.wav", speech(1.0, 1)).to_cut().with_id("o")]
    folder = tmp_path / "shar"
    folder.mkdir()
    CutSet.from_cuts(cuts).to_shar(folder, fields={"recording": "wav"})
    if packed:
        (tar,) = folder.glob("*.tar")
        Path(f"{tar}.gz").write_bytes(gzip.compress(tar.read_bytes()))
        tar.unlink()
    first, last = read_corpus(folder).utterances
    assert isinstance(first.cut, StoredCut)
    assert len(pickle.dumps([first, last])) < 20_000
    assert first.text == "first second"
    for found, expected in ((last, speech(1.0, 1)), (first, speech(6.0)), (last, speech(1.0, 1))):
        loaded = load(found, longest=10**6)
        assert loaded.error is None
        assert loaded.waveform is not None
        assert np.allclose(loaded.waveform, expected, atol=1e-3)


def test_a_large_shar_archive_is_read_in_bounded_memory(tmp_path: Path, speech: Speech) -> None:
    """40 cuts of half a MB; what is kept of each is a few kB, read and listened to one by one."""
    audio = recording(tmp_path / "r.wav", speech(16.0))
    cuts = [audio.to_cut().with_id(f"c{number}") for number in range(40)]
    folder = tmp_path / "shar"
    folder.mkdir()
    CutSet.from_cuts(cuts).to_shar(folder, fields={"recording": "wav"}, shard_size=20)
    size = sum(tar.stat().st_size for tar in folder.glob("*.tar"))
    load(read_corpus(folder).utterances[0], longest=10**6)  # what is imported isn't counted
    tracemalloc.start()
    found = read_corpus(folder).utterances
    for one in found:
        assert load(one, longest=10**6).error is None
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 40
    assert size > 20e6
    assert kept < 1e6
    assert most < 8e6  # a cut while it is decoded


def aligned(*items: tuple[str, float, float]) -> dict[str, list[AlignmentItem]]:
    return {
        "phone": [AlignmentItem(symbol=symbol, start=start, duration=end - start)
                  for symbol, start, end in items]
    }  # fmt: skip


def written_anew(cut: Any, folder: Path, how: str) -> Utterance:
    """Return a cut that is read after its audio was written: its start is forgotten."""
    if how == "shar":
        (folder / "shar").mkdir()
        CutSet.from_cuts([cut]).to_shar(folder / "shar", fields={"recording": "wav"})
        (found,) = read_corpus(folder / "shar").utterances
        return found
    if how == "memory":  # which Lhotse can't write as JSON
        return utterance_of_cut(cut.move_to_memory(), line=1, folder=folder)
    (found,) = read_back([cut.save_audio(folder / "saved.wav")], folder)
    return found


# Lhotse leaves open a file that it moves to memory
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["shar", "memory", "saved"])
@pytest.mark.parametrize(
    ("trimmed", "items", "expected"),
    [
        # labels that begin, or fill, as their supervision does leave no doubt where they belong
        (True, [("s", 2.0, 3.0), ("t", 3.0, 4.0)], (("s", 0.0, 1.0), ("t", 1.0, 2.0))),
        (False, [("s", 2.0, 2.5)], (("f", 0.0, 1.5), ("s", 2.0, 2.5))),
        # here they may belong at 0.5 s or at 1 s: better none than wrong ones
        (True, [("s", 2.5, 3.0)], ()),
        (True, [("s", 1.0, 1.5)], ()),
    ],
)
def test_labels_of_rewritten_audio_are_where_they_sound_or_left_out(
    whole: MonoCut,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: str,
    trimmed: bool,
    items: list[tuple[str, float, float]],
    expected: tuple[Any, ...],
) -> None:
    second, first = whole.supervisions
    second.alignment, first.alignment = aligned(*items), aligned(("f", 0.0, 1.5))
    cut = next(iter(whole.trim_to_supervisions())) if trimmed else whole
    assert written_anew(cut, tmp_path, how).labels == expected
    assert ("are left out" in caplog.text) == (not expected)


@pytest.mark.parametrize("split", ["train", None])
def test_noise_has_no_say_in_the_fields_of_a_mixed_cut(
    whole: MonoCut, tmp_path: Path, speech: Speech, split: str | None
) -> None:
    whole.custom = {"split": split, "translation": {"de": "zwei"}}
    noise = recording(tmp_path / "noise.wav", speech(3.0, 1)).to_cut()
    noise.custom = {"split": "noise"}
    (found,) = read_back([whole.mix(noise, snr=10)], tmp_path)
    assert (found.split, found.translation) == (split, {"de": "zwei"})


def test_the_audio_of_a_shar_archive_belongs_to_its_identity(
    whole: MonoCut, tmp_path: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    for seed, folder in ((0, first), (1, other)):
        recording(tmp_path / "r.wav", speech(6.0, seed))  # of the same name, length and cut
        folder.mkdir()
        CutSet.from_cuts([whole]).to_shar(folder, fields={"recording": "wav"})
    shutil.copy(first / "cuts.000000.jsonl.gz", other)
    for size in (corpus.BLOCK, 1024):  # all of the archive, and blocks of a larger one
        monkeypatch.setattr(corpus, "BLOCK", size)
        assert read_corpus(first).sha256 != read_corpus(other).sha256
    shutil.copy(first / "recording.000000.tar", other)
    assert read_corpus(first).sha256 == read_corpus(other).sha256


def test_a_cutset_is_not_made_of_a_shar_archive(whole: MonoCut, tmp_path: Path) -> None:
    (tmp_path / "shar").mkdir()
    CutSet.from_cuts([whole]).to_shar(tmp_path / "shar", fields={"recording": "wav"})
    (found,) = read_corpus(tmp_path / "shar").utterances
    with pytest.raises(CorpusError, match="a CutSet can't hold"):
        cut_of(found)


def test_a_cut_that_lhotse_cannot_make_is_listed(whole: MonoCut, tmp_path: Path) -> None:
    path = tmp_path / "cuts.jsonl"
    CutSet.from_cuts([whole]).to_file(path)
    good = path.read_text()
    path.write_text(
        good + good.replace('"channels": [0]', '"channels": null').replace('"r"', '"x"')
    )
    corpus = read_corpus(path)
    assert len(corpus.entries) == 2
