"""The command ``python -m tokenizers.perturb``; what it does is `unitone.corpus.perturb`."""

from unitone.corpus.perturb import main

if __name__ == "__main__":
    raise SystemExit(main())
