"""``python -m recipes.tour``."""

from unitone.recipes.tour.tour import main

if __name__ == "__main__":
    raise SystemExit(main())
