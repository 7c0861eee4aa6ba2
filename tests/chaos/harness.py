"""A disturbed run: records flow, workers join, leave and are killed, and the history is checked afterwards."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError

from tests.chaos import checker
from tests.chaos.history import read_calls, read_commits
from tests.cluster import Cluster, a_route, eventually
from tests.process import RunningConsumer

KEYS = 500
SESSION_SECONDS = 6.0
SHORT_SESSIONS = {
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": f"{SESSION_SECONDS * 1000:.0f}",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
}
"""What the brokers decide under the consumer protocol."""


class Plan(NamedTuple):
    """The parameters of a run; the same plan with the same seed disturbs in the same order."""

    seed: int
    ordering: str
    events: int = 100_000
    partitions: int = 12
    workers: int = 3
    rate: float = 5_000.0
    kills: bool = False
    pause: tuple[float, float] = (0.5, 2.0)
    disturbances: int = 0
    """Minimum number of disturbances; records flow until then, even if a busy machine starts workers slowly."""
    overrides: tuple[str, ...] = ()
    """Settings of every worker."""
    protocol: str = "classic"
    """Group protocol of every worker."""

    @property
    def group(self) -> tuple[str, ...]:
        """Settings of the group: under the consumer protocol the brokers have the session and the heartbeats."""
        if self.protocol == "consumer":
            return ("kafka.group_protocol=consumer",)
        # A killed worker is missed only after this; where nobody is killed nobody must be taken for dead.
        session = SESSION_SECONDS if self.kills else 45.0
        return (f"kafka.session_timeout_seconds={session}", "kafka.heartbeat_interval_seconds=0.5")


class Report(NamedTuple):
    """The result of a run: counts, and every violation in words."""

    events: int
    calls: int
    repeats: int
    disturbances: int
    commits: int
    seconds: float
    broken: list[str]
    said: list[str]
    """Warnings and errors that the workers logged; read them first when something is broken."""


class Run:
    """One plan on one topic; ``go`` returns when all records are handled and committed, or fails."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self._cluster = cluster
        self._plan = plan
        self._random = Random(plan.seed)
        self._folder = cluster.folder / "calls"
        self._workers: list[RunningConsumer] = []
        self._all: list[RunningConsumer] = []
        self._names = 0
        self._produced: dict[int, list[int]] = {}
        self._unacknowledged: list[asyncio.Future[Any]] = []
        self._disturbances = 0

    async def go(self) -> Report:
        plan, began = self._plan, time.monotonic()
        self._folder.mkdir()
        await self._cluster.create(plan.partitions)
        async with AsyncExitStack() as opened:
            producing = asyncio.create_task(self._produce())
            opened.callback(producing.cancel)
            for _ in range(plan.workers):
                await self._join(opened)
            while not producing.done():
                await self._disturb(opened)
                await asyncio.wait([producing], timeout=self._random.uniform(*plan.pause))
            await producing
            await eventually(self._all_committed, seconds=120)
            for worker in self._workers:
                await worker.said("daemon_started")
                assert await worker.stop() == 0, worker.lines[-5:]
        return await self._judge(time.monotonic() - began)

    async def _produce(self) -> None:
        """Produce at a steady rate with keys chosen by the seed, and note acknowledged offsets.

        aiokafka's producer does not outlive every fault (its sequence numbers get out of order). Then another goes on,
        and what the first did not acknowledge may be in the log or not.
        """
        random, began, numbers = Random(self._plan.seed), time.monotonic(), self._numbers()
        ended = False
        while not ended:
            failures = len(self._unacknowledged)
            with suppress(KafkaError):
                async with self._cluster.producer(enable_idempotence=True, linger_ms=5) as producer:
                    for number in numbers:
                        value = b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"%d"}' % number
                        key = b"k%d" % random.randrange(KEYS)
                        (await producer.send(self._cluster.topic, value, key=key)).add_done_callback(self._note)
                        if len(self._unacknowledged) > failures:
                            break
                        if (early := number / self._plan.rate - (time.monotonic() - began)) > 0.01:
                            await asyncio.sleep(early)
                    else:
                        ended = True
        for offsets in self._produced.values():
            offsets.sort()

    def _note(self, sent: asyncio.Future[Any]) -> None:
        """Note where a record was acknowledged, or that it was not."""
        if sent.cancelled() or sent.exception() is not None:
            self._unacknowledged.append(sent)
        else:
            self._produced.setdefault(sent.result().partition, []).append(sent.result().offset)

    def _numbers(self) -> Iterator[int]:
        """Yield the numbers of the events to produce."""
        number = 0
        while number < self._plan.events or self._disturbances < self._plan.disturbances:
            yield number
            number += 1

    async def _join(self, opened: AsyncExitStack) -> None:
        self._names += 1
        worker = self._cluster.run(
            f"delivery.ordering={self._plan.ordering}",
            *self._plan.group,
            *self._plan.overrides,
            routes=a_route("logged:Logged", folder=self._folder, delay=0.004),
            name=f"worker-{self._names}",
        )
        await opened.enter_async_context(self._prepared(worker))
        self._workers.append(worker)
        self._all.append(worker)

    def _prepared(self, worker: RunningConsumer) -> RunningConsumer:
        """Change how a worker is started."""
        return worker

    async def _disturb(self, opened: AsyncExitStack) -> None:
        """Add, stop, replace, or kill and replace one worker; at least one always runs."""
        self._disturbances += 1
        kinds = ["join", "leave", "replace", *(["kill"] * 3 if self._plan.kills else [])]
        kind = self._random.choice(kinds)
        if kind == "join" and len(self._workers) > self._plan.workers:
            kind = "leave"
        if kind == "leave" and len(self._workers) < self._plan.workers:
            kind = "join"
        if kind != "join":
            worker = self._workers.pop(self._random.randrange(len(self._workers)))
            await worker.said("daemon_started")  # before that it is Python's own start that is signalled
            worker.signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            code = await worker.exit_code()
            assert code == (-signal.SIGKILL if kind == "kill" else 0), (kind, code, worker.lines[-5:])
        if kind != "leave":
            await self._join(opened)

    async def _all_committed(self) -> bool:
        return await self._cluster.lag() == 0

    async def _judge(self, seconds: float) -> Report:
        calls = read_calls(self._folder)
        commits = await read_commits(self._cluster.bootstrap_servers, self._cluster.kafka.group_id, self._cluster.topic)
        repeats = checker.repeats(calls)
        broken = [
            *checker.lost(self._produced, calls),
            *checker.ahead(self._produced, calls, commits),
            *checker.regressions(commits),
            *checker.needless_repeats(calls, commits),
        ]
        if self._plan.ordering != "unordered":
            broken += checker.disorder(calls, self._plan.ordering)
        if repeats and not self._plan.kills:
            broken.append(f"{repeats} records were handled twice, and nobody was killed")
        said = [line for worker in self._all for line in worker.lines if '"level": "info"' not in line]
        produced = sum(map(len, self._produced.values()))
        return Report(produced, len(calls), repeats, self._disturbances, len(commits), round(seconds, 1), broken, said)


def describe(plan: Plan, report: Report) -> str:
    """Return one line for a person, followed by the violations."""
    line = (
        f"{plan.protocol}, seed {plan.seed}, {plan.ordering},"
        f" {'with' if plan.kills else 'without'} kills: {report.events} events,"
        f" {report.calls} calls, {report.repeats} repeats, {report.commits} commits,"
        f" {report.disturbances} disturbances, {report.seconds} s, broken: {len(report.broken)}"
    )
    return "\n  ".join([line, *report.broken[:20], *(report.said[:20] if report.broken else ())])


def folder_for(parent: Path, plan: Plan) -> Path:
    folder = parent / f"{plan.protocol}-{plan.ordering}-{plan.seed}-{'kills' if plan.kills else 'graceful'}"
    folder.mkdir(parents=True)
    return folder
