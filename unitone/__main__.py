"""``python -m unitone`` is the ``unitone`` command."""

import sys

from unitone.cli import main

if __name__ == "__main__":
    sys.exit(main())
