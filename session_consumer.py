"""The console script: runs the command line of the package ``consumer``, if that is the one beside this file.

`consumer` is a common name, so another package may be found first. The name of this module is not common.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code; exit with 2 if ``consumer`` is another package."""
    spec = find_spec("consumer")
    found = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    place = next(filter(None, found), "")
    if Path(place).resolve() != Path(__file__).resolve().parent / "consumer" / "__init__.py":
        sys.stderr.write(
            f"session-consumer: the package 'consumer' comes from {place or 'nowhere'}, not from session-consumer;"
            " take that off PYTHONPATH, or use a separate environment\n"
        )
        sys.exit(2)
    from consumer.cli import main as run  # noqa: PLC0415 - only after the check

    run()
