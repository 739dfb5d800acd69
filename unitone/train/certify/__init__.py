"""Checks of a training set-up: what is trained, resumed, shared, averaged and counted."""
