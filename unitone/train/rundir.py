"""The folder of a training run: what it was told, where it ran, and its metrics.

``config.json`` is the resolved configuration, ``run.json`` the command line, versions and commit of
every start, ``metrics.jsonl`` the curves, ``tensorboard/`` the same for TensorBoard if that is
installed.
"""

import importlib.metadata
import importlib.util
import json
import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import unitone
from unitone import files
from unitone.errors import ConfigError
from unitone.resume import Journal, require_unchanged

logger = logging.getLogger(__name__)


MARKS = ("run.json", "metrics.jsonl", "checkpoints", "store")
"""What a run's folder has from its beginning; without any of them, files in it are the user's."""


class RunDir:
    """Written by the first process only."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.checkpoints = out / "checkpoints"
        self._metrics = Journal(out / "metrics.jsonl")
        self._board: Any = None

    def check(
        self, settings: Mapping[str, Any], *, may_differ: Collection[str], whole: bool = True
    ) -> None:
        """Compare with the configuration the run began with; not ``whole``: as far as it is known.

        Raises:
            ConfigError: a setting that shapes the result differs; names it.
        """
        path = self.out / "config.json"
        if not path.is_file():
            return
        before = files.read_json(path)
        cure = "give the old value to go on, or another --out to start anew"
        require_unchanged(
            before,
            {**(dict.fromkeys(before) if whole else {}), **settings},
            where=self.out,
            may_differ=may_differ,
            cure=cure,
        )

    def require_unlost(self, *, save_every: int) -> None:
        """Without a checkpoint, check that there never was one: a run begins anew only then.

        Raises:
            ConfigError: the run of this folder had written some.
        """
        reached = max((record["step"] for record in self._metrics.records()), default=0)
        if reached > save_every or (self.out / "last").exists():
            raise ConfigError(
                f"{self.out} holds a run that got to step {reached}, and none of its checkpoints: "
                f"put them back into {self.checkpoints}, or give another --out to start anew"
            )
        if reached:
            logger.warning(
                "%s: its run got to step %d without a checkpoint; it begins anew", self.out, reached
            )

    def start(self, settings: Mapping[str, Any], *, step: int, world_size: int) -> None:
        """Record this start, and forget the metrics after ``step``: they will come again."""
        path = self.out / "run.json"
        starts = files.read_json(path)["starts"] if step and path.is_file() else []
        starts.append({"step": step, "processes": world_size, **environment()})
        files.write_json(path, {"what": "a training run of unitone.train", "starts": starts})
        files.write_json(self.out / "config.json", dict(settings))
        kept = [record for record in self._metrics.records() if record["step"] <= step]
        files.write_text(self._metrics.path, "".join(f"{json.dumps(record)}\n" for record in kept))
        if importlib.util.find_spec("tensorboard") is None:
            logger.info("TensorBoard is not installed; the curves are in %s", self._metrics.path)
            return
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.out / "tensorboard"), purge_step=step + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record of metrics; it has a ``step``."""
        self._metrics.append(dict(record))
        if self._board is not None:
            for name, value in numbers(record):
                self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        if self._board is not None:
            self._board.close()


def numbers(record: Mapping[str, Any], prefix: str = "train") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record with TensorBoard's names, ``train/loss`` for one."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from numbers(value, name if name == "validation" else f"{prefix}/{name}")
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}/{name}", float(value)


def environment() -> dict[str, Any]:
    """Return time, command line, versions and commit."""
    packages = ("torch", "numpy", "safetensors")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), "unitone": unitone.__version__}
        | versions,
        "commit": commit(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Return the commit of the checkout we run from, ``-dirty`` after it if files differ."""
    git = shutil.which("git")
    folder = Path(unitone.__file__).parent
    if git is None or not (folder.parent / ".git").exists():
        return None
    command = [git, "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    found = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
