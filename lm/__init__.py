"""The language models and the vocabulary that owns every offset. Import as ``unitone.lm``."""
