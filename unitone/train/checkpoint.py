"""Checkpoints of a training run: whole or absent, checked when read, never pickled.

``step-00001000/`` holds one safetensors file per set of tensors, such as ``model`` (weights),
``model.ema`` and ``model.optimizer``, and ``state.json`` with the rest and the SHA-256 of each.
Weights are whole tensors under the names of the module, whatever the number of processes was.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unitone import files
from unitone.errors import CheckpointError
from unitone.train.optim import local, shared_like, whole

STATE = "state.json"
PARTIAL = "partial"
"""How the name of a folder ends that isn't finished."""
STEP = re.compile(r"step-(\d{8})")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return checkpoints / f"step-{step:08d}"


def found(checkpoints: Path) -> list[Path]:
    """Return the finished checkpoints, oldest first."""
    if not checkpoints.is_dir():
        return []
    return sorted(path for path in checkpoints.iterdir() if STEP.fullmatch(path.name))


def write(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Write one checkpoint; ``tensors`` by file name without the suffix.

    Raises:
        OSError: no room; what was there before is untouched.
    """
    with replacing_folder(folder) as temporary:
        hashes = {}
        for name, content in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_tensors(path, content)
            hashes[path.name] = files.sha256(path)
        files.write_json(temporary / STATE, {**state, "sha256": hashes})


def read(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the tensors, on the CPU, and the state that `write` got.

    Raises:
        CheckpointError: a file is missing, cut off or altered; says which and what to do.
    """
    try:
        state = files.read_json(folder / STATE)
        hashes = state.pop("sha256")
        tensors = {}
        for name, expected in hashes.items():
            tensors[name.removesuffix(".safetensors")] = _unharmed(folder / name, expected)
    except (CheckpointError, OSError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{_reason(error, folder)}. {_cure(folder)}") from error
    return tensors, state


def _unharmed(path: Path, expected: str | None) -> dict[str, Tensor]:
    if expected is None or not path.is_file():
        raise CheckpointError(f"{path.parent} holds no {path.name}")
    if files.sha256(path) != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not {expected}")
    return load_tensors(path)


def prune(checkpoints: Path, *, keep: int) -> None:
    """Delete all but the last ``keep`` checkpoints."""
    for old in found(checkpoints)[:-keep]:
        shutil.rmtree(old)


def average(folders: Sequence[Path], network: str) -> dict[str, Tensor]:
    """Return the mean of a network's weights over several checkpoints, for `load_weights`.

    What is not floating point is taken from the last one.

    Raises:
        CheckpointError: there are none, or one is damaged, has no such network or other weights.
    """
    if not folders:
        raise CheckpointError("there are no checkpoints to average")
    sums: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for folder in folders:
        name = f"{network}.safetensors"
        last = _unharmed(folder / name, files.read_json(folder / STATE)["sha256"].get(name))
        if sums and _shapes(last) != _shapes(sums):
            raise CheckpointError(f"{folder} and {folders[0]} have weights of different shapes")
        for name, tensor in last.items():
            sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
    return {
        name: (sums[name] / len(folders)).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in last.items()
    }


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers, detached; a tied weight once, under one name."""
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {name: p.detach() for name, p in module.named_parameters()}
    buffers = module.state_dict()
    return found | {name: buffers[name] for name in buffers if name not in names}


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return whole tensors on the CPU; every process must call, those that ``keep`` get them."""
    gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
    return {name: tensor.cpu().contiguous() for name, tensor in gathered if keep}


@torch.no_grad()
def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy whole ``tensors`` into a module, sharded or not.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape differs; says which.
    """
    copy_into(weights(module), tensors, where=where)


@torch.no_grad()
def copy_into(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy whole ``tensors`` into ``targets`` of the same names and shapes.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape differs; says which.
    """
    for name in sorted(targets.keys() ^ tensors.keys()):
        what = "has no" if name in targets else "has, and this model has not, the"
        raise CheckpointError(f"{where} {what} tensor {name!r}")
    for name, target in targets.items():
        if tensors[name].shape != target.shape:
            shapes = f"{tuple(tensors[name].shape)}, this model {tuple(target.shape)}"
            raise CheckpointError(f"{where}: tensor {name!r} has shape {shapes}")
        local(target).copy_(local(shared_like(tensors[name].to(target.device), target)))


def optimizer_state(
    module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return the state of the optimizers of a module as ``parameter/key`` → tensor."""
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for optimizer in optimizers:
            if parameter in optimizer.state:
                state |= {f"{name}/{key}": v for key, v in optimizer.state[parameter].items()}
    return state


def load_optimizer_state(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
    *,
    where: str,
) -> None:
    """Give the optimizers what `optimizer_state` returned.

    Raises:
        CheckpointError: a tensor belongs to no parameter.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    states: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        states.setdefault(name, {})[key] = tensor
    for optimizer in optimizers:
        described = optimizer.state_dict()
        mine = [p for group in optimizer.param_groups for p in group["params"]]
        described["state"] = {
            index: {
                key: shared_like(value.to(p.device), p) if value.shape == p.shape else value
                for key, value in states.pop(names[p]).items()
            }
            for index, p in enumerate(mine)
            if names[p] in states
        }
        optimizer.load_state_dict(described)
    for name in states:
        raise CheckpointError(f"{where} has optimizer state of {name!r}, which is not trained")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file and wait until it is on the disk.

    Raises:
        OSError: no room.
    """
    path.touch()  # has the permissions the user wants; safetensors would leave 0600
    mode = path.stat().st_mode
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # tells an error of the system in words only
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)
    with path.open("rb") as written:
        os.fsync(written.fileno())


def weight_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, shapes and bytes of all tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error


def load_finite(path: Path) -> dict[str, Tensor]:
    """Read the weights of a model that is about to be used.

    Raises:
        CheckpointError: as `load_tensors`; or some are no numbers, of which nothing but silence or
            an error far away would come.
    """
    tensors = load_tensors(path)
    for name, one in tensors.items():
        if one.is_floating_point() and not one.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite numbers")
    return tensors


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``; on success it takes its place, else it goes."""
    for left in folder.parent.glob(f".*.{PARTIAL}"):  # of a process that was killed
        shutil.rmtree(left)
    restore(folder)
    temporary = folder.with_name(f".{folder.name}.{PARTIAL}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _sync(temporary)
        if folder.exists():
            folder.rename(_aside(folder))
        temporary.rename(folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        restore(folder)


def restore(folder: Path) -> None:
    """Bring back the old ``folder`` if a process was killed between moving it and its successor."""
    aside = _aside(folder)
    if not aside.exists():
        return
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _reason(error: BaseException, folder: Path) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return f"{folder / STATE} is not the state of a checkpoint"


def _cure(folder: Path) -> str:
    older = [path for path in found(folder.parent) if path.name < folder.name]
    then = f"go on from {older[-1].name}" if older else "start anew"
    return f"To {then}, remove {folder} and run the same command again"
