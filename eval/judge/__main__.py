"""``python -m eval.judge``."""

from unitone.eval.judge.judge import main

if __name__ == "__main__":
    raise SystemExit(main())
