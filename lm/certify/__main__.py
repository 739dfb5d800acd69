"""``python -m unitone.lm.certify``."""

from unitone.lm.certify.command import main

if __name__ == "__main__":
    raise SystemExit(main())
