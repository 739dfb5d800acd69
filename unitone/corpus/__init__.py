"""Corpora: utterance records, the readers that make them, and their waveforms."""
