"""How much an audio file holds, whatever its header says: MP3, and WAV, AIFF and AU.

MP3, ISO/IEC 11172-3 §2.4.1.3 and 13818-3: a frame starts with eleven ones, then version, layer, bit
rate and sampling rate, which give its length in bytes and its samples. WAV (RIFF, RF64: EBU Tech
3306) and AIFF are chunks of a name and a length; AU has one length.
"""

from dataclasses import dataclass
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, Literal

LONGEST_FRAME = 1152
"""Samples."""
_BIT_RATES = {  # kbit/s by (MPEG 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
_STREAMED = 0x7FFF_0000
"""Lengths from here on are what programs write that don't know how much will come."""


def num_samples(path: Path) -> int:
    """Return the samples per channel in all frames of an MPEG file."""
    now = path.stat()
    return _counted(path, now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=256)  # many clips are of one recording
def _counted(path: Path, size: int, modified: int) -> int:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return _count(data)


def _count(data: mmap) -> int:
    position, total = _after_tags(data[:10]), 0
    while position + 4 <= len(data):
        frame = _frame(data[position : position + 4])
        if frame is None:
            position = data.find(b"\xff", position + 1)
            if position < 0:
                break
            continue
        size, samples = frame
        position += size
        total += samples
    return total


def _after_tags(data: bytes) -> int:
    """Return where the ID3 tag at the beginning ends; its size is four times seven bits."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _frame(header: bytes) -> tuple[int, int] | None:
    """Return bytes and samples of the frame with this header, None if it is no header."""
    first, second, third, _ = header
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bit_rate, sampling_rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if first != 0xFF or second >> 5 != 7 or version == 1 or layer == 4:
        return None
    if bit_rate in (0, 15) or sampling_rate == 3:
        return None
    whole = version == 3  # MPEG 1; MPEG 2 and 2.5 have half and a quarter of its rates
    rate = _RATES[sampling_rate] // {3: 1, 2: 2, 0: 4}[version]
    kbits = _BIT_RATES[whole, layer][bit_rate - 1]
    if layer == 1:
        return (12_000 * kbits // rate + padding) * 4, 384
    samples = 1152 if layer == 2 or whole else 576
    return samples // 8 * 1000 * kbits // rate + padding, samples


@dataclass(frozen=True, kw_only=True)
class SampleBytes:
    """The bytes of a file's samples."""

    said: int
    """By the header."""
    held: int
    """In the file: what comes after them and is no chunk is samples too."""


def sample_bytes(path: Path) -> SampleBytes | None:
    """Return the bytes of samples of a WAV, AIFF or AU file.

    None for other forms, and where the header leaves the length open, as files of a pipe do.
    """
    now = path.stat()
    return _sample_bytes(path, now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=256)
def _sample_bytes(path: Path, size: int, modified: int) -> SampleBytes | None:
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b".snd":
            return _known(_number(start[8:12], "big"), size - _number(start[4:8], "big"))
        if start[8:] == b"WAVE" and start[:4] in (b"RIFF", b"RIFX", b"RF64"):
            return _of_chunks(file, size, order="big" if start[:4] == b"RIFX" else "little")
        if start[:4] == b"FORM" and start[8:] in (b"AIFF", b"AIFC"):
            return _of_chunks(file, size, order="big")
    return None


def _of_chunks(file: BinaryIO, size: int, *, order: Literal["big", "little"]) -> SampleBytes | None:
    position, wide = 12, None
    while position + 8 <= size:
        name, length = _chunk(file, position, order)
        position += 8
        if name == b"ds64":
            wide = _number(file.read(16)[8:], order)
        if name in (b"data", b"SSND"):
            length = wide if wide is not None else length
            end = _after_chunks(file, position + length, size, order)
            return _known(length, min(length, size - position) + max(size - end, 0))
        position += length + length % 2
    return None


def _after_chunks(file: BinaryIO, position: int, size: int, order: Literal["big", "little"]) -> int:
    """Return where the chunks that begin at ``position`` end."""
    while position + 8 <= size:
        for start in (position, position + position % 2):
            name, length = _chunk(file, start, order)
            if all(32 <= byte < 127 for byte in name) and start + 8 + length <= size:
                break
        else:
            return position
        position = start + 8 + length
    return size


def _chunk(file: BinaryIO, position: int, order: Literal["big", "little"]) -> tuple[bytes, int]:
    file.seek(position)
    header = file.read(8)
    return header[:4], _number(header[4:], order)


def _number(data: bytes, order: Literal["big", "little"]) -> int:
    return int.from_bytes(data, order)


def _known(said: int, held: int) -> SampleBytes | None:
    return None if said >= _STREAMED and said > held else SampleBytes(said=said, held=held)
