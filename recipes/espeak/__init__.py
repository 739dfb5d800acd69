"""The embedded corpus of eSpeak NG. ``python -m recipes.espeak``."""
