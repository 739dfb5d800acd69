"""The mean of a run's last checkpoints, as a model directory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.lm.conftest import rows
from unitone.lm import average, family
from unitone.lm import train as lm_train
from unitone.train import checkpoint

MakeShards = Callable[..., Path]


@pytest.fixture(params=[(), ("--ctc", "0.5")], ids=["plain", "ctc"])
def run(make_shards: MakeShards, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    arguments = [
        *("--tokens", str(make_shards(rows(8))), "--out", str(tmp_path / "run")),
        *("--config", "lm-tiny"),
        *("--steps", "4", "--save-every", "1", "--keep", "3", "--validate-every", "9"),
        *("--max-tokens", "256", "--valid-utterances", "0", "--threads", "1", "--device", "cpu"),
        *request.param,
    ]
    assert lm_train.main(arguments) == 0
    return tmp_path / "run"


def test_weights_are_the_mean_and_the_rest_is_the_last_model(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean"
    assert average.main(["--run", str(run), "--last", "3", "--out", str(out)]) == 0

    folders = checkpoint.found(run / "checkpoints")
    assert [folder.name for folder in folders] == [f"step-0000000{n}" for n in (2, 3, 4)]
    name = "model.embedding.weight"
    each = [checkpoint.load_tensors(folder / "model.safetensors")[name] for folder in folders]
    loaded, last = family.load(out, device="cpu"), family.load(run / "last", device="cpu")
    known = len(loaded.vocabulary)  # padding rows aren't kept
    found = loaded.model.embedding.weight.data[:known]
    torch.testing.assert_close(found, torch.stack(each).mean(0)[:known])
    assert not torch.equal(loaded.model.embedding.weight, last.model.embedding.weight)
    assert loaded.tasks == last.tasks
    assert loaded.tokenizer is not None
    assert "step-00000002" in (out / "README.md").read_text()


def test_what_can_not_be_averaged(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "mean")
    for options, complaint in (
        (["--run", str(run), "--last", "4", "--out", out], "has kept 3 checkpoints"),
        (["--run", str(tmp_path), "--out", out], "no run of lm.train"),
        (["--run", str(run), "--last", "2", "--out", str(run)], "is there already"),
    ):
        assert average.main(options) == 2
        assert complaint in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        average.main(["--run", str(run), "--last", "1", "--out", out])
    assert "--last must be at least 2" in capsys.readouterr().err
    cut = checkpoint.found(run / "checkpoints")[-1] / "model.safetensors"
    content = bytearray(cut.read_bytes())
    content[-1] ^= 1
    cut.write_bytes(content)
    assert average.main(["--run", str(run), "--last", "2", "--out", out]) == 1
    assert "is damaged: its SHA-256" in capsys.readouterr().err
    assert not Path(out).exists()
