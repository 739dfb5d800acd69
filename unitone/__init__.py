"""Unitone: discrete-token unified speech language models."""

__version__ = "0.1.0"
