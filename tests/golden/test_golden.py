"""Numbers that must not move, made by the code of one day and checked ever after.

Made by ``python -m tests.golden.make``, see there; ``pytest tests/golden --golden-exact`` asks for
equality to the bit, which holds on one machine with one thread.
"""

from pathlib import Path

import pytest
import torch

from tests.golden.case import HERE, Case, read
from tests.golden.cases import CASES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_have_not_moved(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    exact = request.config.getoption("--golden-exact")
    case: Case = CASES[name]
    inputs, expected = read(HERE / f"{name}.safetensors")
    found = case.run(inputs, tmp_path)
    assert found.keys() == expected.keys()
    rtol, atol = (0.0, 0.0) if exact else (case.rtol, case.atol)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_the_files_are_those_of_the_cases_and_small() -> None:
    sizes = {path.stem: path.stat().st_size for path in HERE.glob("*.safetensors")}
    assert sizes.keys() == CASES.keys()
    assert max(sizes.values()) <= 100_000
    assert sum(sizes.values()) < 600_000
