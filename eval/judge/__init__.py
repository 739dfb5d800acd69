"""The ASR judge of synthesised speech. ``python -m eval.judge train|score``."""
