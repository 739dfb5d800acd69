"""Corpora and experiments, one file each. Import as ``unitone.recipes``."""
