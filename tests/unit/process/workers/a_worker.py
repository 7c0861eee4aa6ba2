"""A worker without Kafka: ``a_worker.py FOLDER PLANS --worker=NUMBER:DESCRIPTOR``.

``PLANS`` is a JSON object: for each number what its processes do, one after the other; the last plan is repeated. The
file ``events`` in the folder gets a line for all that happens: the number, the process and what it was.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from consumer.process.workers.lifeline import Lifeline

BEAT_SECONDS = 0.2


def wait_while(held: Callable[[], bool]) -> None:
    """Wait as a worker that imports for long, and catches no signal yet."""
    while held():
        time.sleep(0.05)


def main(folder: Path, plans: dict[str, list[str]], number: str, descriptor: int) -> int:
    def note(what: str) -> None:
        with (folder / "events").open("a") as file:
            file.write(f"{number} {os.getpid()} {what}\n")

    note("started")
    wait_while((folder / "hold").exists)
    begun = sum(line.startswith(f"{number} ") and "started" in line for line in (folder / "events").open())
    plan = plans.get(number, ["serve"])
    what, _, code = plan[min(begun, len(plan)) - 1].partition(" ")
    stopped = threading.Event()
    for each in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, lambda caught, _: note(signal.Signals(caught).name))
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)
    line = Lifeline(descriptor)
    with line.stopping(stopped.set):
        if what == "exit":
            return int(code)
        line.alive("starting" if what == "lonely" else "running")
        line.ready(int(code or 1))
        note("ready")
        while not stopped.wait(BEAT_SECONDS):
            if what == "lonely":
                return int(code)
            if what != "mute":
                line.alive("running")
            if what == "beat":
                note("beat")
        note("stopped")
        if what == "stuck":
            time.sleep(60)
        return int(code) if what == "ends" else 0


if __name__ == "__main__":
    number, _, descriptor = sys.argv[-1].removeprefix("--worker=").partition(":")
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2]), number, int(descriptor)))
