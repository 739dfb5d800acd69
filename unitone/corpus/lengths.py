"""How much an audio file holds, whatever its header says.

MP3, ISO/IEC 11172-3 §2.4.1.3 and 13818-3: a frame starts with eleven ones, then version, layer, bit
rate and sampling rate, which give its length in bytes and its samples. WAV (RIFF, RF64: EBU Tech
3306), AIFF and CAF are chunks of a name and a length; AU has one length. FLAC, RFC 9639 §9.1: each
frame says which sample it begins with. Ogg, RFC 3533 §6: pages are counted, and the last is marked.
Of rarer forms, the log of libsndfile says what it found to contradict. The headers of IRCAM, PAF
and PVF have no length.
"""

import re
from collections.abc import Iterator
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
    """Return the bytes of samples of a WAV, AIFF, CAF, AU or NIST SPHERE file.

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
        if start[:4] == b"caff":
            return _of_chunks(file, size, order="big", wide=8)
        if start[:7] == b"NIST_1A":
            return _of_sphere(file, size)
    return None


def _of_sphere(file: BinaryIO, size: int) -> SampleBytes | None:
    """Read NIST's header, a few lines of text; what is compressed has no bytes to a sample."""
    file.seek(8)
    length = file.read(8).strip()
    if not length.isdigit():
        return None
    file.seek(0)
    found = dict(re.findall(rb"^(\w+) -\w+ (\S+)", file.read(int(length)), re.MULTILINE))
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    coded = found.get(b"sample_coding", b"pcm")
    if coded not in (b"pcm", b"ulaw", b"alaw") or not all(
        found.get(name, b"").isdigit() for name in names
    ):
        return None
    count, width, channels = (int(found[name]) for name in names)
    return SampleBytes(said=count * width * channels, held=size - int(length))


Order = Literal["big", "little"]


def _of_chunks(file: BinaryIO, size: int, *, order: Order, wide: int = 4) -> SampleBytes | None:
    """Read chunks; ``wide`` is the bytes of their lengths, 8 in CAF, whose data begin with 4."""
    position, more = (12, None) if wide == 4 else (8, None)
    while position + 4 + wide <= size:
        name, length = _chunk(file, position, order, wide)
        position += 4 + wide
        if name == b"ds64":
            more = _number(file.read(16)[8:], order)
        if name in (b"data", b"SSND"):
            if wide == 8 and length >= 1 << 63:  # -1: to the end of the file
                return None
            length = more if more is not None else length
            end = _after_chunks(file, position + length, size, order, wide)
            return _known(length, min(length, size - position) + max(size - end, 0))
        position += length + (length % 2 if wide == 4 else 0)
    return None


def _after_chunks(file: BinaryIO, position: int, size: int, order: Order, wide: int) -> int:
    """Return where the chunks that begin at ``position`` end."""
    while position + 4 + wide <= size:
        for start in (position, position + position % 2):
            name, length = _chunk(file, start, order, wide)
            if all(32 <= byte < 127 for byte in name) and start + 4 + wide + length <= size:
                break
        else:
            return position
        position = start + 4 + wide + length
    return size


def _chunk(file: BinaryIO, position: int, order: Order, wide: int) -> tuple[bytes, int]:
    file.seek(position)
    header = file.read(4 + wide)
    return header[:4], _number(header[4:], order)


def _number(data: bytes, order: Order) -> int:
    return int.from_bytes(data, order)


def _known(said: int, held: int) -> SampleBytes | None:
    return None if said >= _STREAMED and said > held else SampleBytes(said=said, held=held)


_LOGGED = re.compile(r"\b(?:Frames|Cols)\s*:\s*(\d+)")
_PLAIN = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "NIST", "MP3", "MPEG")
"""Forms that are checked by `sample_bytes` and `num_samples`."""


def broken(path: Path, form: str, *, frames: int, log: str) -> str | None:
    """Return why a file of another form isn't whole, or None.

    Args:
        path: the file.
        form: its form, as libsndfile calls it.
        frames: samples that its header says, per channel.
        log: what libsndfile noted while it opened the file.
    """
    if form in _PLAIN:
        return None
    if form in ("FLAC", "OGG"):
        now = path.stat()
        check = _broken_flac if form == "FLAC" else _broken_ogg
        return check(path, frames, now.st_size, now.st_mtime_ns)
    said = [int(number) for number in _LOGGED.findall(log)]
    if "(should be" in log or "truncated" in log or (said and said[-1] > frames):
        return "cut off: its header says more than the file holds"
    return None


@lru_cache(maxsize=256)
def _broken_ogg(path: Path, frames: int, size: int, modified: int) -> str | None:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return _ogg_fault(data)


def _ogg_fault(data: mmap) -> str | None:
    position, expected, flags, serial = 0, 0, 0, b""
    cure = "write it anew, e.g. `ffmpeg -i FILE NEW.wav`"
    while position + 27 <= len(data) and data[position : position + 4] == b"OggS":
        flags = data[position + 5]
        if flags & 2 and position:
            return f"holds several streams, of which one would be read; {cure}"
        serial = serial or data[position + 14 : position + 18]
        if _number(data[position + 18 : position + 22], "little") != expected:
            return f"a part is missing in the middle; {cure}"
        if data[position + 14 : position + 18] != serial:
            return f"holds other streams besides its sound; {cure}"
        expected += 1
        sizes = data[position + 27 : position + 27 + data[position + 26]]
        position += 27 + len(sizes) + sum(sizes)
    if position > len(data) or not flags & 4:
        return f"cut off: its last page isn't marked as the last; {cure}"
    return None


@lru_cache(maxsize=256)
def _broken_flac(path: Path, frames: int, size: int, modified: int) -> str | None:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        cure = "write it anew, e.g. `flac -d --decode-through-errors FILE`, then `flac`"
        begin = max(data.find(b"fLaC"), 0)  # after an ID3 tag
        if data.find(b"fLaC\0\0\0\x22", begin + 4) > 0:
            return f"holds several streams, of which one would be read; {cure}"
        if not _number(data[begin + 21 : begin + 26], "big") & (1 << 36) - 1:
            return f"its header doesn't say its length, as that of a pipe; {cure}"
        held = _flac_samples(data, begin)
    if held and held != frames:
        return f"its header says {frames:,} samples, its frames hold {held:,}; {cure}"
    return None


def _flac_samples(data: mmap, begin: int) -> int:
    """Return where the last frame ends, 0 if none is found.

    A frame is one that begins where the one before ends: by chance, other bytes look like one.
    """
    block = _number(data[begin + 10 : begin + 12], "big")
    longest = _number(data[begin + 15 : begin + 18], "big") or 1 << 17
    ends, last = {0}, 0
    for first, count in _flac_frames(data, max(len(data) - 3 * longest - 4096, begin + 42), block):
        if first in ends:
            last = max(last, first + count)
        ends.add(first + count)
    return last


def _flac_frames(data: mmap, position: int, block: int) -> Iterator[tuple[int, int]]:
    """Yield the first sample and the number of samples of what looks like a frame."""
    while (position := data.find(b"\xff", position)) >= 0:
        header = data[position : position + 16]
        position += 1
        if len(header) < 6 or header[1] & 0xFE != 0xF8 or header[2] >> 4 == 0 or header[3] & 1:
            continue
        number, used = _flac_number(header[4:])
        code, at = header[2] >> 4, 4 + used
        more = {6: 1, 7: 2}.get(code, 0)
        count = {1: 192, 6: _number(header[at : at + more], "big") + 1}.get(code)
        if code == 7:
            count = _number(header[at : at + more], "big") + 1
        elif count is None:
            count = 576 << code - 2 if code < 6 else 256 << code - 8
        at += more + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
        if used and at < len(header) and _crc8(header[:at]) == header[at]:
            yield (number if header[1] & 1 else number * block), count


def _flac_number(data: bytes) -> tuple[int, int]:
    """Return a number that is coded as UTF-8 codes characters, and its bytes; 0 if it is none."""
    ones = 8 - (data[0] ^ 0xFF).bit_length()
    if ones == 0:
        return data[0], 1
    if ones in (1, 8) or any(byte >> 6 != 2 for byte in data[1:ones]):
        return 0, 0
    number = data[0] & (1 << 7 - ones) - 1 if ones < 7 else 0
    for byte in data[1:ones]:
        number = number << 6 | byte & 63
    return number, ones


def _crc8(data: bytes) -> int:
    found = 0
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = (found << 1 ^ (7 if found & 0x80 else 0)) & 0xFF
    return found
