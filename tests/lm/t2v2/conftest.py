"""A T2V2 that has learnt a tiny language by heart, once for all tests of the folder."""

from pathlib import Path
from typing import Any

import pytest

from tests.lm.conftest import rows, write_shards
from unitone.lm import train as lm_train

TRAINING = [
    *("--config", "t2v2-tiny", "--upsample", "2", "--steps", "260", "--lr", "3e-3"),
    *("--optimizer", "adamw", "--warmup-steps", "20", "--dropout", "0", "--max-tokens", "600"),
    *("--weights", "lid", "2", "gid", "1"),
    *("--validate-every", "260", "--threads", "1", "--device", "cpu"),
]


def table() -> list[dict[str, Any]]:
    """Return sentences whose units say the language: German words are the English ones reversed."""
    made = []
    for row in rows(32):
        units = row["units"]
        if row["language"] == "de":
            units = [units[3 * (place // 3) + 2 - place % 3] for place in range(len(units))]
        made.append(row | {"units": units, "split": "train"})
    return made


TABLE = table()


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run; its shards are in ``tokens`` beside it."""
    folder = tmp_path_factory.mktemp("t2v2")
    shards = write_shards(folder / "tokens", TABLE)
    assert lm_train.main([*TRAINING, "--tokens", str(shards), "--out", str(folder / "run")]) == 0
    return folder / "run"
