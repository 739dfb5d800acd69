"""Scores, reports and benchmarks. Import as ``unitone.eval``."""
