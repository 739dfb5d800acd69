"""Text tokenizers, and subwords over units."""
