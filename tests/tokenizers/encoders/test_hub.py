"""Encoders by their published names: the hub's cache, offline, and what is downloaded."""

import sys
import types
from pathlib import Path

import pytest

from tests.tokenizers.encoders.test_weights import Weights, fairseq, hugging_face, load, renamed
from unitone.errors import CheckpointError
from unitone.tokenizers.encoders import _hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home" / "hub"


def put_in_cache(hub: Path, repository: str, weights: Weights) -> None:
    folder = hub / f"models--{repository.replace('/', '--')}"
    hugging_face(folder / "snapshots" / "abc123", weights)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123\n", encoding="utf-8")


def test_published_names_come_from_the_local_cache(hub: Path) -> None:
    put_in_cache(hub, "microsoft/wavlm-base-plus", renamed(fairseq(wavlm=True)))
    encoder = load("wavlm-base-plus")
    assert encoder.name == "wavlm-base-plus"
    by_repository = load("microsoft/wavlm-base-plus")
    assert by_repository.name == "wavlm-base-plus"
    assert by_repository.weight_hash == encoder.weight_hash


def test_other_hub_models_are_named_by_their_size(hub: Path) -> None:
    put_in_cache(hub, "someone/my-hubert", renamed(fairseq()))
    assert load("someone/my-hubert").name == "hubert-2x32"


def test_not_cached_and_offline_says_how_to_go_on(hub: Path) -> None:
    with pytest.raises(CheckpointError, match=r"facebook/hubert-base-ls960 is not in the local"):
        load("hubert-base")
    (hub / "models--facebook--hubert-base-ls960" / "snapshots" / "abc").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        load("hubert-base")


def test_without_huggingface_hub_the_extra_is_named(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'unitone\[hf\]'"):
        load("hubert-base")


def test_what_is_not_cached_is_downloaded_once(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = hugging_face(tmp_path / "source", renamed(fairseq()))
    asked = []

    class AbsentError(Exception):
        pass

    def hf_hub_download(repository: str, name: str) -> str:
        asked.append((repository, name))
        if not (source / name).exists():
            raise AbsentError
        return str(source / name)

    module, errors = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
    module.hf_hub_download = hf_hub_download  # type: ignore[attr-defined]
    errors.EntryNotFoundError = AbsentError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert load("org/model").num_layers == 2
    assert asked == [("org/model", "config.json"), ("org/model", "model.safetensors")]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    hub: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv("HF_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _hub.cache_dir() == Path(expected).expanduser()
