"""The commands; ``main`` is what the console script calls."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code.

    What the commands need takes a third of a second to import; a signal in that time finds nothing begun, and ends the
    process in peace.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    from consumer.cli.main import run_cli  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(run_cli(sys.argv[1:]))


__all__ = ["main"]
