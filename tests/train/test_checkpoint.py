"""Checkpoints on disk: whole, checked, averaged, never pickled."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unitone.errors import CheckpointError
from unitone.train import checkpoint


class Tied(nn.Module):
    def __init__(self, *, dim: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, dim)
        self.head = nn.Linear(dim, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("cache", torch.zeros(2), persistent=False)


def written(checkpoints: Path, step: int, tensor: Tensor) -> Path:
    folder = checkpoint.folder_of(checkpoints, step)
    checkpoint.write(folder, {"model": {"weight": tensor}, "model.ema": {}}, {"step": step})
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = written(tmp_path, 7, torch.arange(6.0).reshape(2, 3).T)
    tensors, state = checkpoint.read(folder)
    assert torch.equal(tensors["model"]["weight"], torch.arange(6.0).reshape(2, 3).T)
    assert tensors["model.ema"] == {}
    assert state == {"step": 7}
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_leaves(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        folder = written(tmp_path, 1, torch.ones(2))
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "model.safetensors": mode,
        "model.ema.safetensors": mode,
        "state.json": mode,
    }


def test_a_tied_weight_is_written_once_and_loaded_into_both() -> None:
    tensors = checkpoint.weights(Tied())
    assert tensors.keys() == {"embedding.weight", "count"}
    model = Tied()
    changed = {"embedding.weight": torch.ones(5, 4), "count": torch.tensor(9)}
    checkpoint.load_weights(model, changed, where="there")
    assert torch.equal(model.head.weight, torch.ones(5, 4))
    assert model.count == 9


def test_weights_that_do_not_fit_are_named() -> None:
    tensors = checkpoint.weights(Tied())
    with pytest.raises(CheckpointError, match=r"there: .*'embedding.weight' has shape \(5, 4\)"):
        checkpoint.load_weights(Tied(dim=3), tensors, where="there")
    with pytest.raises(CheckpointError, match="there has no tensor 'count'"):
        checkpoint.load_weights(Tied(), {"embedding.weight": torch.zeros(5, 4)}, where="there")
    with pytest.raises(CheckpointError, match="'extra'"):
        checkpoint.load_weights(Tied(), {**tensors, "extra": torch.zeros(1)}, where="there")


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
def test_damage_is_named_with_the_cure(tmp_path: Path, name: str, damage: str) -> None:
    written(tmp_path, 1, torch.ones(100))
    path = written(tmp_path, 2, torch.ones(100)) / name
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content.replace(b'"sha256"', b'"sha25x"')[:-9] + b"\x07" + content[-8:])
    else:
        path.unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path.parent)
    assert name in str(caught.value)
    assert f"To go on from step-00000001, remove {path.parent}" in str(caught.value)


def test_the_only_checkpoint_damaged_means_starting_anew(tmp_path: Path) -> None:
    folder = written(tmp_path, 1, torch.ones(1))
    (folder / "state.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"state\.json is not .* To start anew, remove"):
        checkpoint.read(folder)


def test_a_failure_while_writing_leaves_no_trace(tmp_path: Path) -> None:
    written(tmp_path, 1, torch.ones(1))
    with pytest.raises(TypeError):
        checkpoint.write(checkpoint.folder_of(tmp_path, 2), {}, {"step": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.partial").mkdir(parents=True)
    (tmp_path / ".step-00000001.partial" / "model.safetensors").write_bytes(b"x")
    assert checkpoint.found(tmp_path) == []
    folder = written(tmp_path, 2, torch.ones(1))
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_replaced_or_stays(tmp_path: Path) -> None:
    best = tmp_path / "best"
    for content in ("first", "second"):
        with checkpoint.replacing_folder(best) as folder:
            (folder / "model").write_text(content)
    with contextlib.suppress(KeyError), checkpoint.replacing_folder(best) as folder:
        (folder / "model").write_text("third")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (best / "model").read_text() == "second"
    best.rename(tmp_path / ".best.old")  # where a kill in the middle of the exchange leaves it
    checkpoint.restore(best)
    assert (best / "model").read_text() == "second"


def test_old_checkpoints_go(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        written(tmp_path, step, torch.ones(1))
    checkpoint.prune(tmp_path, keep=2)
    names = [path.name for path in checkpoint.found(tmp_path)]
    assert names == ["step-00000003", "step-00000010"]


def test_the_average_is_the_mean(tmp_path: Path) -> None:
    folders = []
    for step in (1, 2, 3):
        folder = checkpoint.folder_of(tmp_path, step)
        tensors = {"weight": torch.full((2,), float(step)), "count": torch.tensor(step)}
        checkpoint.write(folder, {"model": tensors}, {})
        folders.append(folder)
    mean = checkpoint.average(folders, "model")
    assert torch.equal(mean["weight"], torch.full((2,), 2.0))
    assert mean["weight"].dtype == torch.float32
    assert mean["count"] == 3
    with pytest.raises(CheckpointError, match="no checkpoints"):
        checkpoint.average([], "model")
    with pytest.raises(CheckpointError, match=r"holds no judge\.safetensors"):
        checkpoint.average(folders, "judge")
    written(tmp_path, 4, torch.ones(3))
    with pytest.raises(CheckpointError, match="different shapes"):
        checkpoint.average([*folders, checkpoint.folder_of(tmp_path, 4)], "model")


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = written(tmp_path, 1, torch.ones(1))
    json.loads((folder / "state.json").read_text())
    shutil.rmtree(folder)
    for path in ("checkpoint", "trainer", "network", "rundir", "watch"):
        source = (Path(checkpoint.__file__).parent / f"{path}.py").read_text()
        assert "torch.save" not in source
        assert "import pickle" not in source
