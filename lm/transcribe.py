"""Say what is said in recordings: ``unitone transcribe a.wav``.

Line n is the text of recording n; with ``--words``, JSON: ``text``, and ``words``, each with
``word``, ``start`` and ``end`` in seconds, and ``confidence``. Of one that can't be used, the line
is empty, standard error has the reason, and the exit status is 1.
"""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from unitone import program
from unitone.config import command_line
from unitone.errors import ConfigError, CorpusError
from unitone.lm.options import DecodingPrecision

if TYPE_CHECKING:
    from unitone.lm.inference import UnifiedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig:
    recordings: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Audio files; the text of each is a line."""
    model: Path | None = None
    """Model directory; default: the tour's, exp/tour/lm/best."""
    words: bool = False
    """When each word is said, and how sure the model is; of models that know."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: DecodingPrecision = "fp32"
    """fp32, bf16 where the processor has it, or int8, on a CPU."""


def transcribe(config: TranscribeConfig) -> None:
    """Write the texts, one a line, each when it is there."""
    if not config.recordings:
        raise ConfigError("name the recordings: unitone transcribe a.wav b.wav")
    from unitone.lm.inference import open_model

    model = open_model(config.model, device=config.device, precision=config.precision)
    bad = 0
    for recording in config.recordings:
        text = ""
        try:
            text = _timed(model, recording) if config.words else model.transcribe(recording)
        except CorpusError as error:
            bad += 1
            logger.error("%s", error)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    if bad:
        raise CorpusError(f"{bad} of {len(config.recordings)} recordings could not be used")


def _timed(model: "UnifiedModel", recording: Path) -> str:
    words = model.transcribe_words(recording)
    line = {"text": " ".join(one.word for one in words), "words": [one.rounded() for one in words]}
    return json.dumps(line, ensure_ascii=False)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TranscribeConfig, argv, __doc__)
    return program.run(lambda: transcribe(config))


if __name__ == "__main__":
    raise SystemExit(main())
