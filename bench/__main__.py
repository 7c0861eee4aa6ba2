"""``python -m bench quick`` prints one JSON object; ``python -m bench full`` writes ``RESULTS.md``."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime

from bench.driver import ContestantError, VoidRunError
from bench.full import PARTS, full, report
from bench.in_use import NAMES
from bench.letters import letters
from bench.quick import quick


def main() -> None:
    options = _options()
    try:
        if options.what == "quick":
            print(json.dumps(asyncio.run(quick(options.work))))
        elif options.what == "letters":
            print(json.dumps(asyncio.run(letters(options.rounds))))
        elif options.what == "report":
            report()
        else:
            asyncio.run(full(options.only, options.events, options.rounds, options.date))
    except (VoidRunError, ContestantError) as error:
        raise SystemExit(f"bench: {error}") from error


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "what",
        choices=["quick", "full", "letters", "report"],
        help="what to run; report: write RESULTS.md from results.json",
    )
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), default=[], help="run only this part; repeatable"
    )
    parser.add_argument(
        "--work",
        action="append",
        choices=NAMES,
        default=[],
        help='quick: run only this work of "In use"; repeatable',
    )
    parser.add_argument("--events", type=int, default=500_000, help="number of events per run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat(), help="date in the report (today)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
