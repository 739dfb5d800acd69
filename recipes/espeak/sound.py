"""Lines of text in, FLAC files and timed phones out; eSpeak NG runs in a process of its own.

The library is found by where its package lies; neither it nor the package is ever imported here.
"""

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from unitone.corpus.audio import SAMPLE_RATE
from unitone.errors import ConfigError, CorpusError

PhoneSpan = tuple[str, float, float]
"""Symbol, start and end in seconds."""

_PAUSE = 0.1  # s of silence before and after; eSpeak NG itself ends within 10 ms
_VOLUME = 70  # at eSpeak NG's own 100 the loudest voice reaches full scale


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What to say, and how."""

    text: str
    voice: str
    """eSpeak NG's name, such as ``roa/fr+f2``; with the folder it is found without a search."""
    rate: int
    """Words a minute."""
    pitch: int
    """0 to 100; 50 is the voice's own."""
    pitch_range: int
    """0 to 100; 50 is the voice's own."""
    peak: float
    """The largest absolute sample, of 1."""

    @property
    def request(self) -> str:
        """The line that asks the worker for it."""
        numbers = (self.rate, self.pitch, self.pitch_range, _VOLUME)
        return "\t".join((self.voice, *map(str, numbers), self.text))


@dataclass(frozen=True)
class _Answer:
    samples: Int16[np.ndarray, "N"]
    sample_rate: int
    marks: Sequence[tuple[str, int]]
    """eSpeak NG's mnemonic of each phone and its start in samples."""


def speak(speeches: Sequence[Speech], paths: Sequence[Path]) -> list[tuple[float, list[PhoneSpan]]]:
    """Write each speech to its path as FLAC (16 kHz, mono, 16 bit); return durations and phones.

    The bytes of a file depend on its speech only.

    Raises:
        ConfigError: espeakng-loader is not installed.
        CorpusError: eSpeak NG failed.
    """
    import soxr

    spoken = []
    for speech, path, answer in zip(speeches, paths, _answers(speeches), strict=True):
        waveform = soxr.resample(
            answer.samples.astype(np.float32), answer.sample_rate, SAMPLE_RATE, quality="HQ"
        )
        largest = float(np.abs(waveform).max(initial=0.0))
        if largest == 0.0:
            raise CorpusError(f"eSpeak NG is silent for {speech.text!r} with {speech.voice}")
        scaled = np.pad(waveform * (speech.peak * 32767 / largest), round(_PAUSE * SAMPLE_RATE))
        _write_flac(path, np.round(scaled).astype(np.int16))
        duration = len(scaled) / SAMPLE_RATE
        spoken.append((duration, _phones(answer, duration)))
    return spoken


def versions() -> dict[str, str]:
    """Return the versions of everything that the bytes of an audio file depend on."""
    import soundfile
    import soxr

    return {
        "eSpeak NG": _run_worker("").decode().strip(),
        "espeakng-loader": metadata.version("espeakng-loader"),
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
    }


def _phones(answer: _Answer, duration: float) -> list[PhoneSpan]:
    """Turn the starts of the phones into intervals that tile the utterance, pauses included.

    Stress marks go, and pauses of all kinds become one ``_``.
    """
    bounds: list[tuple[str, float]] = [("_", 0.0)]
    for mnemonic, start in answer.marks:
        symbol = mnemonic.strip("',%=")
        if not symbol or symbol.startswith("_"):
            symbol = "_"
        time = round(_PAUSE + start / answer.sample_rate, 4)
        if symbol == bounds[-1][0] == "_" or not bounds[-1][1] < time < duration:
            continue
        bounds.append((symbol, time))
    if bounds[-1][0] != "_":
        bounds.append(("_", round(duration - _PAUSE, 4)))
    ends = [*(start for _, start in bounds[1:]), duration]
    return [(symbol, start, end) for (symbol, start), end in zip(bounds, ends, strict=True)]


def _answers(speeches: Sequence[Speech]) -> Iterator[_Answer]:
    answer = _run_worker("".join(f"{speech.request}\n" for speech in speeches))
    position = answer.index(b"\n") + 1  # after the version
    while position < len(answer):
        end = answer.index(b"\n", position)
        num_samples, rate, *marks = answer[position:end].decode().split()
        samples = np.frombuffer(answer, np.int16, int(num_samples), end + 1)
        position = end + 1 + samples.nbytes
        pairs = (mark.rpartition(":") for mark in marks)
        yield _Answer(samples, int(rate), [(symbol, int(start)) for symbol, _, start in pairs])


def _run_worker(requests: str) -> bytes:
    worker = Path(__file__).with_name("worker.py")
    command = [sys.executable, "-I", "-S", str(worker), str(_library_folder())]
    result = subprocess.run(command, input=requests.encode(), capture_output=True, check=False)
    if result.returncode != 0:
        reason = result.stderr.decode(errors="replace").strip() or f"status {result.returncode}"
        raise CorpusError(f"the eSpeak NG process failed: {reason}")
    return result.stdout


def _library_folder() -> Path:
    spec = find_spec("espeakng_loader")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the espeak corpus needs espeakng-loader: pip install 'unitone[tour]'")
    return Path(spec.submodule_search_locations[0])


def _write_flac(path: Path, samples: Int16[np.ndarray, "N"]) -> None:
    """Write 16 kHz FLAC, whole or not at all.

    It doesn't wait for the disk, as ``files.replacing`` and soundfile with a path do: that would
    take longer than the speech. A file that a power cut left empty is made again.
    """
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(buffer.getbuffer())
    temporary.replace(path)
