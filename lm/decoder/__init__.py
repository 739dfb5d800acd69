"""The decoder-only model family."""

PREFIX = "lm-"
"""How the names of its sizes begin."""
