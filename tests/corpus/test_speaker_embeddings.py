from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unitone.corpus import speaker_embeddings
from unitone.errors import CheckpointError, ConfigError


def test_vectors_come_back_as_float32(tmp_path: Path) -> None:
    given: dict[str, np.ndarray] = {
        "u1": np.arange(3, dtype=np.float64),
        "ann": np.ones(3, np.float32),
    }
    save_file(given, tmp_path / "v.safetensors")
    found = speaker_embeddings.read(tmp_path / "v.safetensors", option="--vectors")
    assert {name: vector.dtype for name, vector in found.items()} == dict.fromkeys(
        given, np.dtype(np.float32)
    )
    np.testing.assert_array_equal(found["u1"], [0, 1, 2])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)},
        {"a": np.ones((1, 3), np.float32)},
    ],
    ids=["none", "two widths", "a matrix"],
)
def test_anything_but_vectors_of_one_length_is_refused(
    given: dict[str, np.ndarray], tmp_path: Path
) -> None:
    save_file(given, tmp_path / "v.safetensors")
    with pytest.raises(ConfigError, match=r"--vectors .*expected vectors of one length"):
        speaker_embeddings.read(tmp_path / "v.safetensors", option="--vectors")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--vectors .*not readable"):
        speaker_embeddings.read(tmp_path / "absent", option="--vectors")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(CheckpointError, match=r"--vectors .*not readable"):
        speaker_embeddings.read(tmp_path / "text", option="--vectors")


def test_the_utterance_goes_before_its_speaker() -> None:
    names = {"u1", "ann"}
    assert speaker_embeddings.name_of(names, id="u1", speaker="ann", option="--vectors") == "u1"
    assert speaker_embeddings.name_of(names, id="u2", speaker="ann", option="--vectors") == "ann"
    for speaker in ("bob", None):
        with pytest.raises(ConfigError, match=f"--vectors: none for utterance 'u2' .*{speaker}"):
            speaker_embeddings.name_of(names, id="u2", speaker=speaker, option="--vectors")
