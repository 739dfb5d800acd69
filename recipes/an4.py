"""AN4: spelled names, numbers and dates, recorded at CMU in 1991 (0.8 h, BSD-like license).

    python -m recipes.an4 --root an4 --out exp/an4

ROOT is CMU's release as it is unpacked (``etc/an4_train.fileids``, ``wav/an4_clstk/…``), of
https://github.com/cmusphinx/an4 (WAV) or http://www.speech.cs.cmu.edu/databases/an4 (SPHERE or raw
samples). Train and test are the release's own; dev is every tenth speaker of train, from one that
a fixed seed draws. Or give ``--manifest``, one JSON object a line: id, audio, text, speaker,
language, split (train, dev, test; no speaker in two of them). Measured results:
``docs/results.md``.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from unitone import files, seeding
from unitone.corpus.audio import SAMPLE_RATE
from unitone.errors import CorpusError
from unitone.recipes import recognition, release

SOURCE = "https://github.com/cmusphinx/an4, and unpack it into --root"
FORMATS = (".wav", ".sph", ".raw")
LINE = re.compile(r"(.*)\((\S+)\)")
"""Of a transcription: words, then the recording's name."""


def prepare(root: Path, out: Path | None = None) -> Path:
    """Write the manifest of the release in ``root`` and return its path.

    Args:
        root: what CMU's archive holds.
        out: folder for the manifest, and for raw samples as FLAC; default: ``root`` itself.

    Raises:
        CorpusError: a file of the release is missing or damaged.
    """
    out = out or root
    listed = {split: _listed(root, split) for split in ("train", "test")}
    dev = _dev({Path(name).parent.name for name, _ in listed["train"]})
    return release.write_manifest(
        out,
        (
            _entry(root, out, name, text=text, split=split, dev=dev)
            for split, found in listed.items()
            for name, text in found
        ),
    )


def _listed(root: Path, split: str) -> list[tuple[str, str]]:
    """Return (path below ``wav`` without suffix, text) of each recording of a split."""
    names, texts = (root / "etc" / f"an4_{split}.{kind}" for kind in ("fileids", "transcription"))
    release.require([names, texts], source=SOURCE)
    spoken: dict[str, str] = {}
    for line in texts.read_text(encoding="utf-8").splitlines():
        if found := LINE.fullmatch(line.strip()):
            words = [word for word in found[1].split() if word not in ("<s>", "</s>")]
            spoken[found[2]] = " ".join(words)
    listed = names.read_text(encoding="utf-8").split()
    for name in listed:
        if Path(name).name not in spoken:
            raise CorpusError(f"{texts}: no line for {Path(name).name}; get it from {SOURCE}")
    return [(name, spoken[Path(name).name]) for name in listed]


def _dev(speakers: set[str]) -> set[str]:
    """Return every tenth speaker; as their names begin with f or m, a tenth of either."""
    first = int(seeding.stream(0, "an4", "dev").integers(min(10, len(speakers))))
    return set(sorted(speakers)[first::10])


def _entry(
    root: Path, out: Path, name: str, *, text: str, split: str, dev: set[str]
) -> dict[str, Any]:
    speaker = Path(name).parent.name
    stem = f"an4-{Path(name).name}"
    return {
        "id": stem,
        "audio": _recording(root / "wav" / name, out / "audio" / f"{stem}.flac"),
        "text": text,
        "speaker": f"an4-{speaker}",
        "language": "en",
        "gender": {"f": "female", "m": "male"}.get(speaker[0]),
        "split": "dev" if split == "train" and speaker in dev else split,
    }


def _recording(path: Path, copy: Path) -> Path:
    """Return the recording; raw samples, which have no header, become a FLAC file."""
    found = [path.with_name(path.name + suffix) for suffix in FORMATS]
    there = next((one for one in found if one.is_file()), None)
    if there is None:
        release.require(found[:1], source=SOURCE)
    assert there is not None
    if there.suffix != ".raw":
        return there
    if not copy.is_file():
        import soundfile

        with files.replacing(copy) as temporary:
            soundfile.write(
                temporary, raw_samples(there), SAMPLE_RATE, format="FLAC", subtype="PCM_16"
            )
    return copy


def raw_samples(path: Path) -> Int16[np.ndarray, "N"]:
    """Read raw samples of either order of bytes, as CMU has them: the wrong one gives noise."""
    data = path.read_bytes()
    data = data[: len(data) // 2 * 2]
    return min(
        (np.frombuffer(data, kind).astype(np.int16) for kind in (">i2", "<i2")),
        key=lambda samples: float(np.abs(np.diff(samples.astype(np.float64))).sum()),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return recognition.main(recognition.RecognitionConfig, argv, __doc__, prepare=prepare)


if __name__ == "__main__":
    raise SystemExit(main())
