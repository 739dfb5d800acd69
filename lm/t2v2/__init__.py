"""The non-autoregressive family: one conformer that recognizes, synthesizes and translates."""

PREFIX = "t2v2-"
"""How the names of its sizes begin."""
