"""What several tests of the recipes take."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def fsdd_root(tmp_path: Path, speech: Callable[..., np.ndarray]) -> Path:
    """A checkout of FSDD in small: two digits by one speaker, at 8 kHz."""
    folder = tmp_path / "digits" / "recordings"
    folder.mkdir(parents=True)
    for digit in (0, 7):
        for take in (0, 4, 5, 9, 10, 49):
            soundfile.write(folder / f"{digit}_jackson_{take}.wav", speech(0.5, take)[::2], 8000)
    (folder / "notes.wav").write_bytes(b"")
    return folder.parent
