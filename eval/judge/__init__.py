"""The ASR judge of synthesized speech. ``python -m eval.judge train|score``."""

from unitone.eval.judge.judge import Judge as Judge
from unitone.eval.judge.judge import load as load
