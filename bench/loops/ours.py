"""This project, through its real daemon: settings, routes loaded by name, engine, metrics endpoint, commits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from bench.loops.in_use import CALLS, FILES, SECONDS, SECRET
from bench.loops.ours_handlers import handlers
from bench.meter import Meter, read_job, say
from consumer.logs import configure_logging
from consumer.observe.loop_time import TimedLoop
from consumer.process.parts import make_daemon
from consumer.routes.load import load_routes
from consumer.settings.sections import DeadLetterSettings, Delivery, Http, Kafka, Log, RouteSettings, Settings

IDLE_SECONDS = 1.0

MODES = {
    "inline": ("inline", "partition"),
    "record": ("record", "partition"),
    "async": ("coroutine", "partition"),
    "async_suspending": ("suspending", "partition"),
    "batch": ("batch", "partition"),
    "key": ("coroutine", "key"),
    "key_suspending": ("suspending", "key"),
    "latency": ("latency", "partition"),
    "wait0": ("waiting", "key"),
    "wait1": ("waiting", "key"),
    "wait10": ("waiting", "key"),
    "wait0_partition": ("waiting", "partition"),
    "routes3": ("coroutine", "partition"),
    "reject5": ("rejecting", "partition"),
    "reject_all": ("rejecting", "partition"),
    "webhook": ("webhook", "key"),
    "republish": ("republish", "partition"),
}
"""The handler's name and the ordering, by mode."""


def routes_for(job) -> list[RouteSettings]:
    """Return one route that has a match, with 500 records a batch (also the default); for ``routes3`` two files too."""
    mode, _, url = job.mode.partition(":")
    if mode == "republish":
        options = {"topic": url}
        return [RouteSettings(name="count", handler="bench.loops.ours_handlers:CountedRepublish", options=options)]
    if mode == "webhook":
        options = {"url": url, "secret": SECRET}
        return [RouteSettings(name="count", handler="bench.loops.ours_handlers:CountedWebhook", options=options)]
    count = f"bench.loops.ours_handlers:handlers.{MODES[job.mode][0]}"
    if job.mode == "routes3":
        files = [
            RouteSettings(
                name=name.partition(".")[0],
                handler="consumer.handlers.jsonl:JsonLines",
                match={"channel_manager_type": kinds},
                options={"path": str(Path(job.folder) / name)},
            )
            for name, kinds in FILES.items()
        ]
        return [*files, RouteSettings(name="count", handler=count)]
    return [
        RouteSettings(
            name="count",
            handler=count,
            match={"channel_manager_type": "*_v1"},
            max_records=500 if job.mode == "batch" else None,
        )
    ]


def settings_for(job) -> Settings:
    """Return the default settings with the routes and the ordering of a mode."""
    return Settings(
        kafka=Kafka(bootstrap_servers=job.servers.split(","), topics=[job.topic], group_id=job.group),
        delivery=Delivery(ordering=MODES[job.mode.partition(":")[0]][1], concurrency=CALLS),
        dead_letter=DeadLetterSettings(limit_ratio=1.0),
        http=Http(port=0),
        routes=routes_for(job),
    )


async def until_idle() -> None:
    """Return when events were handled and no more arrived for a while."""
    before, since = -1, 0.0
    while handlers.handled == 0 or since < IDLE_SECONDS:
        await asyncio.sleep(0.1)
        since = since + 0.1 if handlers.handled == before else 0.0
        before = handlers.handled


async def main() -> None:
    job, meter, done = read_job(), Meter(), asyncio.Event()
    shared = getattr(job, "shared", False)
    handlers.events = job.events
    handlers.reject_every = {"reject5": 20, "reject_all": 1}.get(job.mode, 0)
    handlers.seconds = SECONDS.get(job.mode, 0.0)
    handlers.at_first = meter.first
    handlers.at_last = lambda: (meter.last(), done.set())
    configure_logging(Log(level="warning"))
    settings = settings_for(job)
    daemon = make_daemon(settings, load_routes(settings, os.environ))
    running = asyncio.create_task(daemon.run())
    while daemon.state == "starting" and not running.done():  # noqa: ASYNC110 - neither tells
        await asyncio.sleep(0.01)
    say(ready=True, port=daemon.http.port)
    ended = asyncio.create_task(until_idle() if shared else done.wait())
    await asyncio.wait([running, ended], return_when=asyncio.FIRST_COMPLETED)
    daemon.stop()
    await running
    if shared:
        meter.last()
    if handlers.took:
        say(latencies_ns=handlers.took[job.warm :])
    meter.report(handlers.handled)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=TimedLoop) as runner:
        runner.run(main())
