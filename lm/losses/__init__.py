"""Losses and alignments that model families share."""
