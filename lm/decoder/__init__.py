"""The decoder-only model family."""
