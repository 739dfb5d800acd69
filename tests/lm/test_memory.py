"""From measured peaks to a token budget."""

import pytest

from unitone.lm import memory
from unitone.lm.jobs import memory as job


def test_the_budget_follows_the_measurements(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(config: memory.MemoryConfig, rows: int, length: int) -> float:
        return 0.5 * job.GIB + 2**20 * rows * length

    monkeypatch.setattr(job, "_alone", measured)
    assert memory.fit(memory.MemoryConfig(gib=4.5, context=64)) == pytest.approx(4096, rel=1e-3)
    assert memory.main(["--gib", "0.51", "--context", "64"]) == 2
    assert "one row of 64 tokens needs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_step_is_measured() -> None:
    config = memory.MemoryConfig(config="lm-tiny", gib=2.0, context=256, device="cpu")
    small, large = job._alone(config, 1, 64), job._alone(config, 64, 256)
    assert 0.1 * job.GIB < small < large
    # 64 x 255 positions more, of four blocks of width 192, and their logits
    assert large - small > 64 * 255 * (4 * 192 + 4000) * 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--gib", "0"], "--gib must be more than 0"),
        (["--gib", "1", "--context", "8"], "--context must be at least 16"),
    ],
)
def test_options_out_of_range(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        memory.main(options)
    assert complaint in capsys.readouterr().err


def test_an_unknown_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--gib", "1", "--config", "lm-huge"]) == 2
    assert "no model size 'lm-huge'" in capsys.readouterr().err
