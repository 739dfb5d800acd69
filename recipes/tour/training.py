"""How the tour trains a language model and decodes; what is compared with it does the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitone.lm import train as lm_train
from unitone.recipes.steps import Step, compiling

TRANSLATED = ("--to", "en", "de", "fr")
DECODING: dict[str, tuple[str, ...]] = {
    "asr": ("--beam", "4"),
    "st": TRANSLATED,
    "mt": TRANSLATED,
    "lid": (),
    "gid": (),
}
"""Options of ``lm.decode`` for the tasks whose test sentences are all decoded."""
CLASSES = {"lid": "language", "gid": "gender"}
"""Field of the manifest that a task has to find."""


@dataclass(frozen=True, kw_only=True)
class Training:
    lm: str = "lm-micro"
    """Size of the language model; in minutes, a larger one learns less."""
    threads: int = 2
    """CPU threads."""
    compile: bool = True
    """Compile the language model, where there is a C++ compiler."""

    def step(self, *, data: Path, out: Path, seconds: float, more: Sequence[str] = ()) -> Step:
        """Return the command that trains for ``seconds``."""
        return Step(
            module="lm.train",
            arguments=(
                *("--config", self.lm, "--data", str(data), "--out", str(out)),
                *("--max-seconds", f"{seconds:g}", "--precision", "bf16", "--lr", "3e-3"),
                *("--max-tokens", "4096", "--warmup-steps", "50", "--decay-share", "0.6"),
                *("--validate-every", "500", "--valid-utterances", "24", "--log-every", "20"),
                *("--threads", str(self.threads), *compiling(self.compile), *more),
            ),
            main=lm_train.main,
        )
