"""Arguments of the Python interface of a type or a range that can't be meant: one sentence."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unitone
from unitone.codecs.codec import Sound, write_wave
from unitone.corpus import audio
from unitone.errors import CorpusError
from unitone.lm import speak
from unitone.lm.jobs.decode import _audio_path

Speech = Callable[..., np.ndarray]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (torch.empty(16_000, device="meta"), "give a dense one"),
        (torch.zeros(16_000).to_sparse(), "give a dense one"),
        ((np.ones(16_000, np.float32), 0), "a sampling rate of 0 Hz"),
        ((np.ones(16_000, np.float32), -16_000), "a sampling rate of -16000 Hz"),
        (np.ma.masked_less(np.linspace(-1, 1, 16_000), 0), "some samples are masked"),
        (np.ones((1, 1, 16_000), np.float32), r"got shape \(1, 1, 16000\)"),
        (b"RIFF", "give floats"),
        ({"array": [0.0], "sampling_rate": 16_000}, "give floats"),
    ],
)
def test_what_is_no_recording_says_so(given: Any, why: str) -> None:
    with pytest.raises(CorpusError, match=why):
        audio.load(given)


def test_samples_in_any_memory_are_the_same(speech: Speech) -> None:
    wave = speech(0.5)
    for given in (
        wave.astype(">f4"),
        wave.astype(np.float64),
        np.repeat(wave, 2)[::2],
        wave[::-1].copy()[::-1],
        wave.tolist(),
        torch.from_numpy(wave).requires_grad_(),
    ):
        np.testing.assert_array_equal(audio.load(given), wave)


# in a process of its own: here, jaxtyping's check of the types comes first
DOORS = """
import sys
import numpy as np
import unitone
from unitone.corpus.corpus import read_corpus
from unitone.errors import UnitoneError
from unitone.tokenizers.tokenizer import Tokenizer

model = unitone.load(sys.argv[1], device="cpu")
wave = np.ones(16_000, np.float32)
for door in (
    lambda: model.speak(5),
    lambda: model.speak(None),
    lambda: model.speak(b"two dogs"),
    lambda: model.speak(["two", "dogs"]),
    lambda: model.speak("two dogs", speaker=1),
    lambda: model.translate("two dogs", to=None),
    lambda: model.transcribe((wave, "16000")),
    lambda: model.transcribe((wave, None)),
    lambda: model.transcribe_all("a.wav"),
    lambda: unitone.load(None),
    lambda: Tokenizer.load(None),
    lambda: read_corpus(3),
):
    try:
        door()
    except UnitoneError as error:
        print(error)
"""
ANSWERS = (
    "a text must be a str, got int",
    "a text must be a str, got NoneType",
    "a text must be a str, got bytes",
    "a text must be a str, got list",
    "no speaker 1; the model has ann, bob",
    "no language None; the model has de, en",
    "samples: a sampling rate of '16000' Hz is not that of a recording",
    "samples: a sampling rate of None Hz is not that of a recording",
    "give a list of recordings, not one: ['a.wav']",
    "a model directory must be a path, got NoneType",
    "a tokenizer directory must be a path, got NoneType",
    "a manifest must be a path, got int",
)


@pytest.mark.slow
def test_arguments_of_any_type_are_refused_in_a_sentence(world: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DOORS, str(world.model)],
        cwd=Path(unitone.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.splitlines()) == ANSWERS


def test_a_full_disk_is_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_wave(tmp_path / "a.wav", Sound(np.zeros(100, np.float32), 16_000))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["two dogs", "--language", "en", "--model", str(world.model), "--device", "cpu"]
    assert speak.main([*words, "--out", "/proc/a.wav"]) == 1
    assert "error: No such file or directory" in capsys.readouterr().err


def test_sound_of_any_ids_has_files_of_its_own(tmp_path: Path) -> None:
    names = ("a/b", "a%2Fb", ".hidden", "../up", "x" * 4000, "x" * 4000 + "y", "n\nl", "nul\0")
    paths = {_audio_path(tmp_path, name) for name in names}
    for path in paths:
        path.write_bytes(b"")
    assert len(paths) == len(names)
    assert {*tmp_path.iterdir()} == paths
    assert not any(path.name.startswith(".") for path in paths)
