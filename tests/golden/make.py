"""Make the golden numbers: ``python -m tests.golden.make [--out FOLDER] [NAME …]``.

Outputs are computed anew from the stored inputs; where a file isn't there yet, inputs are drawn
too. On one machine, without a change of numbers, the bytes stay the same: ``git diff`` says so. A
change that is meant to move them has a line under Numerics in ``CHANGELOG.md``.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from tests.golden.case import HERE, read, write
from tests.golden.cases import CASES


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the files")
    parser.add_argument("names", nargs="*", default=list(CASES), help="cases; default: all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names:
        case, stored = CASES[name], HERE / f"{name}.safetensors"
        inputs = read(stored)[0] if stored.exists() else case.draw()
        with tempfile.TemporaryDirectory() as folder:
            write(given.out / stored.name, inputs, case.run(inputs, Path(folder)))


if __name__ == "__main__":
    main()
