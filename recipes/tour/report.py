"""The page at the end of the tour: scores, sound, curves and how all of it was made.

``python -m recipes.tour.report`` writes it again from what ``make tour`` left. The page holds
everything it shows, needs no network and no script, follows the reader's light or dark theme and
fits a phone. What is not there is said to be missing; no number is made up.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from unitone import program
from unitone.config import command_line

logger = logging.getLogger(__name__)

NAME = "report.html"


@dataclass(frozen=True, kw_only=True)
class TourReportConfig:
    folder: Path = Path("exp/tour")
    """Folder that the tour made; the page goes into it."""


def write(folder: Path) -> Path:
    """Write ``report.html`` into the tour's folder and return its path.

    Raises:
        ConfigError: there is no such folder.
    """
    from unitone.recipes.tour import sections

    return sections.write(folder)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(TourReportConfig, argv, __doc__)
    return program.run(lambda: logger.info("%s", write(config.folder)))


if __name__ == "__main__":
    raise SystemExit(main())
