"""A parent whose workers are those of ``a_worker.py``: ``a_parent.py FOLDER PLANS WORKERS``; exits as ``run`` does."""

from __future__ import annotations

import asyncio
import os
import sys

from consumer.errors import ConsumerError
from consumer.logs import configure_logging
from consumer.process.notify import Notify
from consumer.process.signals import ended_in_time
from consumer.process.workers.parent import run_workers
from consumer.settings.sections import Http, Log, Settings
from tests.unit.process.workers.programs import command


async def main(folder: str, plans: str, workers: int) -> int:
    configure_logging(Log(format="json"))
    try:
        await run_workers(Settings(http=Http(port=0)), workers, command(folder, plans), Notify(os.environ))
    except ConsumerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    with ended_in_time():
        code = asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    sys.exit(code)
