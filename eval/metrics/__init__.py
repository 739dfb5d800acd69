"""Metrics as pure functions of texts and labels."""
