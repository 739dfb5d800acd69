"""``unitone certify``: checks a training set-up of any model family in a minute."""
