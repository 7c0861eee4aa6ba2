"""The commands of ``session-consumer``; ``main`` is the console script."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code.

    The imports of the commands take a third of a second. A signal during that time exits with 0, since nothing has
    begun.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    from consumer.cli.main import run_cli  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(run_cli(sys.argv[1:]))


__all__ = ["main"]
