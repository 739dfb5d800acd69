"""The tour, the main job from end to end. ``python -m recipes.tour``."""
