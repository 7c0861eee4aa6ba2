"""Events sent by the webhook handler, beside a loop written by hand over aiohttp, to a server on this machine.

``python -m bench.webhook`` prints one JSON object: requests a second and CPU microseconds a request of both, with one
partition and 64 calls at once, signed; and the ratio of both in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

from bench.contestants import Contestant
from bench.data import DataSet
from bench.driver import VoidRunError, alternate, open_driver
from bench.environment import ROOT
from bench.machine import machine
from bench.report import over


@asynccontextmanager
async def receiver(requests: int) -> AsyncIterator[str]:
    """Run the server in a process for the block; yield its URL. Raises VoidRunError if it got another number."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.loops.webhook_server", cwd=ROOT, stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        await process.stdout.readline()  # empty
        yield f"http://127.0.0.1:{json.loads(await process.stdout.readline())['port']}/"
    finally:
        process.stdin.close()
        last = await process.stdout.read()
        await process.wait()
    found = json.loads(last)["requests"]
    if found != requests:
        raise VoidRunError(f"{requests} requests expected, {found} received")


async def measure(events: int, rounds: int) -> dict[str, object]:
    async with receiver(2 * events * rounds) as url, open_driver() as driver:
        hand = Contestant("webhook_hand", "by hand: aiohttp, a task for a free slot", "hand_loops", f"webhook:{url}")
        ours = Contestant("webhook", "this project: by key, the webhook handler", "ours", f"webhook:{url}")
        lines = await alternate(driver, [hand, ours], DataSet(events, partitions=1), rounds)
    found: dict[str, object] = {"machine": machine(), "events": events, "rounds": rounds}
    for name in (hand.name, ours.name):
        found[f"{name}_per_second"] = [line["per_second"] for line in lines[name]]
        found[f"{name}_cpu_us"] = [round(line["cpu_us"]) for line in lines[name]]
    found["events_ratio"] = round(median(over(lines[ours.name], lines[hand.name])), 3)
    found["cpu_ratio"] = round(median(over(lines[ours.name], lines[hand.name], "cpu_us")), 3)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.webhook", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="number of events per run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (%(default)s)")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.events, options.rounds))))
