"""How many samples an MP3 holds, counted frame by frame: what headers say may be wrong.

ISO/IEC 11172-3 §2.4.1.3 and 13818-3: a frame starts with eleven ones, then version, layer, bit rate
and sampling rate, which give its length in bytes and its samples.
"""

from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

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
