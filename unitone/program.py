"""How every command line starts and ends: one place for logging, threads and exit statuses.

Exit status 0 is success, 1 a failure while working, 2 wrong usage, 130 an interruption.
"""

import errno
import logging
import os
import sys
from collections.abc import Callable

from unitone import logs
from unitone.errors import UnitoneError

logger = logging.getLogger(__name__)

INTERRUPTED = 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room: on the disk, in the quota, or within the limit on the size of a file."""


def run(main: Callable[[], None]) -> int:
    """Call ``main``; turn the errors a user can act on into one sentence and an exit status."""
    logs.configure(logging.DEBUG if os.environ.get("UNITONE_DEBUG") else logging.INFO)
    try:
        main()
    except UnitoneError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", INTERRUPTED)
    except OSError as error:
        return _fail(_disk_message(error), 1)
    return 0


def _disk_message(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in FULL:
        return (
            f"no space left on the disk{where}; what was finished is kept: "
            "free some space and run the same command again"
        )
    return f"{error.strerror or error}{where}"


def _fail(message: str, status: int) -> int:
    if os.environ.get("UNITONE_DEBUG"):
        logger.exception("traceback, because UNITONE_DEBUG is set")
    sys.stderr.write(f"error: {message}\n")
    return status
