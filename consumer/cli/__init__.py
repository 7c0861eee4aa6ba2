"""The commands of ``session-consumer``; ``main`` runs them."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> NoReturn:
    """Run the command line and exit with its code.

    The imports of the commands take a third of a second. A signal during that time exits with 0, since nothing has
    begun.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    _require_own_schemas()
    if _is_parent(sys.argv[1:]):  # it follows its workers with half the memory, as it imports no Kafka client
        from consumer.cli.workers import run_cli  # noqa: PLC0415 - see above
    else:
        from consumer.cli.main import run_cli  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(run_cli(sys.argv[1:]))


def _is_parent(arguments: list[str]) -> bool:
    """Whether these are the arguments of ``run --workers``, and not those of one of its workers."""
    options = {each.partition("=")[0] for each in arguments}
    return "run" in options and "--workers" in options and "--worker" not in options


def _require_own_schemas() -> None:
    """Exit with 2 if another package has the name `schemas`, which is a common one."""
    spec = find_spec("schemas")
    found = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    place = next(filter(None, found), "")
    if Path(place).resolve() != ROOT / "schemas" / "__init__.py":
        sys.stderr.write(
            f"session-consumer: the package 'schemas' comes from {place or 'nowhere'}, not from session-consumer;"
            " take that off PYTHONPATH, or use a separate environment\n"
        )
        sys.exit(2)


__all__ = ["main"]
