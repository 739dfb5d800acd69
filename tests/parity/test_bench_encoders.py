"""The benchmark of the encoders runs, in tiny, and what it measures is plausible."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parity
def test_it_prints_a_table_per_model() -> None:
    if find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    command = [
        *(sys.executable, "-W", "ignore", "-m", "unitone.eval.bench.encoders"),
        *("--models", "hubert-tiny:1", "wavlm-tiny:2", "--seconds", "2", "--utterance", "1"),
        *("--agreement-seconds", "4", "--ks", "10", "--repeats", "1"),
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line for line in answer.stdout.splitlines() if line.startswith("| ours fp32")]
    assert len(rows) == 2
    assert all(" 1.000000 |" in row for row in rows)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from unitone.eval.bench import encoders as bench_encoders; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
