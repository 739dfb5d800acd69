"""``python -m recipes.espeak``."""

from unitone.recipes.espeak.corpus import main

if __name__ == "__main__":
    raise SystemExit(main())
