"""`asof` and `python -m asof`."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    from asof.cli import run

    _leave(run(sys.argv[1:]))


def _leave(code: int) -> NoReturn:
    """End the process at once, without tearing its libraries down.

    A command may end right after a read, when Arrow's threads are not asleep yet. To destroy them then aborts a process
    that did all it was asked (apache/arrow#39862). Whatever is ours was closed before.
    """
    logging.shutdown()
    with suppress(BrokenPipeError):  # nobody reads on
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
