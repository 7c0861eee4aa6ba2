"""``session-consumer demo``: a Kafka and the daemon on this machine, with a check that no event is missing."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from consumer.cli.progress import ABOVE_BARS, Progress
from consumer.cli.run import until_signal
from consumer.errors import ConsumerError, counted
from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.probe import group_offsets
from consumer.kafka.producer import Outgoing, Producer, create_topic, open_producer
from consumer.logs import configure_logging
from consumer.observe.loop_time import TimedLoop
from consumer.outcome import Outcome
from consumer.process.daemon import Daemon
from consumer.process.parts import make_daemon
from consumer.record import Record, TopicPartition
from consumer.routes.handler import bind_handler
from consumer.routes.load import load_routes
from consumer.routes.route import Route
from consumer.settings.sections import Delivery, Http, Kafka, Log, RouteSettings, Settings, dead_letter_topics
from schemas.samples import keyed_values

TOPIC = "session-events"
PARTITIONS = 4
COMMITTED_SECONDS = 30.0
STUCK_SECONDS = 30.0
TRICKLE_PER_SECOND = 20.0


class Summary(msgspec.Struct):
    """The result of a demo; printed as one object with ``--json``."""

    events: int
    lost: int
    lag: int
    seconds: float
    events_per_second: int
    routes: dict[str, dict[str, int]]


class Ledger:
    """An async handler that notes every offset, to compare with the offsets that Kafka acknowledged."""

    def __init__(self) -> None:
        self.seen: dict[TopicPartition, set[int]] = {}
        self.count = 0

    async def __call__(self, _event: Any, record: Record) -> None:
        """Note one record."""
        self.seen.setdefault(TopicPartition(record.topic, record.partition), set()).add(record.offset)
        self.count += 1

    def missing(self, produced: dict[TopicPartition, list[int]]) -> int:
        """Return the number of produced offsets that did not arrive."""
        return sum(len(set(offsets) - self.seen.get(key, set())) for key, offsets in produced.items())


@click.command()
@click.option(
    "--events", type=click.IntRange(1), default=200_000, show_default=True, help="Number of events to produce."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
@click.option("--stay/--no-stay", default=None, help="Keep running with a few events a second; default on a terminal.")
def demo(*, events: int, as_json: bool, stay: bool | None) -> None:
    """Run Kafka and the daemon, and check that no event is lost.

    A real Apache Kafka, the daemon and three routes run on this machine; nothing is left behind. Exits 1 if an event
    was lost.
    """
    configure_logging(Log(level="warning"), ABOVE_BARS)
    stays = sys.stdout.isatty() and not as_json if stay is None else stay
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="session-consumer-demo-") as folder:
        work = until_signal(_demo(events, Path(folder), stays, as_json, progress))
        with asyncio.Runner(loop_factory=TimedLoop) as runner:
            summary = runner.run(work)
        if summary is None:
            progress.say("Stopped by a signal; nothing is left behind.")


async def _demo(events: int, folder: Path, stays: bool, as_json: bool, progress: Progress) -> Summary:
    async with LocalKafka(report=progress.say) as kafka:
        settings = _settings(kafka.bootstrap_servers, folder)
        for topic in (TOPIC, *dead_letter_topics(settings)):
            await create_topic(settings.kafka, topic, PARTITIONS)
        async with open_producer(settings.kafka, TOPIC) as producer:
            await _produce(producer, events, progress)
            ledger = Ledger()
            routes = [*load_routes(settings, {}), Route("count", None, bind_handler(ledger, "demo"))]
            daemon = make_daemon(settings, routes)
            show = _Show(daemon, ledger, producer, settings)
            async with _running(daemon) as running:
                summary = await show.until_done(events, running, progress)
                _print(summary, as_json, progress)
                if summary.lost or summary.lag:
                    raise ConsumerError(
                        f"lost: {summary.lost} of {counted(events, 'event')}; not committed: {summary.lag}"
                    )
                if stays:
                    await _stay(daemon, producer, running, progress)
            return summary


@asynccontextmanager
async def _running(daemon: Daemon) -> AsyncIterator[asyncio.Task[None]]:
    """Run a daemon during the block; stop it at the end and raise its error."""
    running = asyncio.create_task(daemon.run())
    try:
        yield running
    finally:
        daemon.stop()
        await asyncio.gather(running, return_exceptions=True)
    await running


def _settings(servers: str, folder: Path) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap_servers=servers.split(","), topics=[TOPIC], group_id="demo"),
        delivery=Delivery(commit_interval_seconds=0.5, drain_seconds=5.0),
        http=Http(port=0),
        routes=[
            RouteSettings(
                name="voice",
                handler="consumer.handlers.jsonl:JsonLines",
                match={"channel_manager_type": "voice_*", "is_test": False},
                options={"path": str(folder / "voice.jsonl")},
            ),
            RouteSettings(
                name="chat",
                handler="consumer.handlers.jsonl:JsonLines",
                match={"channel_manager_type": "*_chat_*", "is_test": False},
                options={"path": str(folder / "chat.jsonl")},
            ),
        ],
    )


async def _produce(producer: Producer, events: int, progress: Progress) -> None:
    with progress.bar("Producing", events) as bar:
        for number, (key, value) in enumerate(itertools.islice(keyed_values(), events), 1):
            await producer.send(Outgoing(key, value))
            if number % 1000 == 0 and number < events:
                bar(number)
        await producer.settle()
        bar(events)


class _Show:
    """Watches one daemon consume the produced events, and checks its counts."""

    def __init__(self, daemon: Daemon, ledger: Ledger, producer: Producer, settings: Settings) -> None:
        self._daemon = daemon
        self._ledger = ledger
        self._produced = producer.acknowledged
        self._settings = settings

    async def until_done(self, events: int, running: asyncio.Future[None], progress: Progress) -> Summary:
        """Return the summary when all events are committed, when nothing moves any more, or when the daemon ends."""
        ledger = self._ledger
        started = moved = time.monotonic()
        before = 0
        with progress.bar("Consuming", events) as bar:
            while ledger.count < events and not running.done() and time.monotonic() - moved < STUCK_SECONDS:
                await asyncio.wait([running], timeout=0.02)
                if ledger.count == before == 0:
                    started = time.monotonic()  # the time to join the group does not count
                if ledger.count != before:
                    before, moved = ledger.count, time.monotonic()
                    bar(before)
        seconds = max(time.monotonic() - started, 0.001)
        lag = await self._lag(running)
        return Summary(
            events=events,
            lost=max(ledger.missing(self._produced), self._short_files()),
            lag=lag,
            seconds=round(seconds, 3),
            events_per_second=round(ledger.count / seconds),
            routes=self._outcomes(),
        )

    async def _lag(self, running: asyncio.Future[None]) -> int:
        """Return the lag, from the brokers and not from the daemon, when it is 0 or the time is up."""
        deadline = time.monotonic() + COMMITTED_SECONDS
        while True:
            offsets = await group_offsets(self._settings.kafka)
            lag = sum(end - (committed or 0) for committed, end in offsets.values())
            if lag == 0 or time.monotonic() > deadline or running.done():
                return lag
            await asyncio.wait([running], timeout=0.1)

    def _short_files(self) -> int:
        """Return the number of handled events that the files lack; all are committed, so all must be on disk."""
        short = 0
        for route in self._settings.routes:
            lines = Path(route.options["path"]).read_bytes().count(b"\n")
            short += max(0, self._daemon.counters.outcomes[route.name, Outcome.HANDLED] - lines)
        return short

    def _outcomes(self) -> dict[str, dict[str, int]]:
        routes: dict[str, dict[str, int]] = {}
        for (route, outcome), count in self._daemon.counters.outcomes.items():
            if count or route != "none":
                routes.setdefault(route, {})[outcome.value] = count
        return routes


def _print(summary: Summary, as_json: bool, progress: Progress) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
        sys.stdout.flush()
        return
    rows = [("route", "outcome", "events")]
    for route, outcomes in summary.routes.items():
        rows += [(route, outcome, f"{count:,}") for outcome, count in outcomes.items()]
    progress.table(rows)
    progress.print(
        f"{counted(summary.events, 'event')} in {summary.seconds:.1f} s, {summary.events_per_second:,} a second; "
        f"lost: {summary.lost}; committed lag: {summary.lag}"
    )


async def _stay(daemon: Daemon, producer: Producer, running: asyncio.Future[None], progress: Progress) -> None:
    progress.print(
        f"{TRICKLE_PER_SECOND:g} events a second are produced until Ctrl-C."
        f" Status page: http://127.0.0.1:{daemon.http.port}/ (metrics: /metrics)"
    )
    trickle = asyncio.ensure_future(
        producer.send_all((Outgoing(key, value) for key, value in keyed_values(seed=1)), TRICKLE_PER_SECOND)
    )
    try:
        await asyncio.wait([trickle, running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        trickle.cancel()
        await asyncio.gather(trickle, return_exceptions=True)  # Ctrl-C may have ended the brokers before
