"""The engine: owns the partitions, feeds their workers, drains and commits them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog

from consumer.delivery.batch import BatchCalls
from consumer.delivery.collecting import Collecting
from consumer.delivery.committer import Commits, Committer
from consumer.delivery.dispatch import Dispatch
from consumer.delivery.failure import FailureHandler, FailurePolicy, Failures
from consumer.delivery.gate import Gate
from consumer.delivery.pipeline import Pipeline
from consumer.delivery.tasks import Owner, Tasks, until_ended
from consumer.delivery.turns import Turns
from consumer.delivery.worker import Intake, Work, Workers
from consumer.errors import PartitionHaltedError, StuckCallError
from consumer.observe.counters import Counters
from consumer.observe.remedy import DRAINS, MOST_NAMED, name_passed
from consumer.observe.watchdog import Vital
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from consumer.settings.sections import Delivery

log = structlog.get_logger("consumer.delivery.engine")

CANCEL_GRACE_SECONDS = 1.0
"""How long a cancelled call may take to end before it counts as stuck."""
COMMIT_BUDGET_SECONDS = 4.0
MEASURE_SECONDS = 3.0
MEASURED_WITHIN_SECONDS = 15.0
"""Maximum age of an end offset that counts; if it is older, the partition's leader does not answer."""
WARN_UNMATCHED_SECONDS = 60.0
POLL_SECONDS = 0.2


class Source(Intake, Commits, Protocol):
    """Origin of chunks and destination of commits."""

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when one of these partitions may have a chunk to take, or after about ``seconds``."""

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return a chunk."""

    async def end_offsets(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask the brokers for the partitions' end offsets at this reader's isolation level; empty without an answer."""


class Engine:
    """Owns the partitions of one daemon and their workers; lives inside the daemon's task group.

    When ``revoke`` returns, no commit of the old epoch is in progress, and all work has ended except calls that do not
    react to their cancellation. Such a call blocks its partition in the next epoch until it ends.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        policy: FailurePolicy,
        delivery: Delivery,
        counters: Counters,
        committer: Committer,
        owner: Owner,
    ) -> None:
        self.stuck_calls = 0
        """Calls still running after the stop, though they were cancelled."""
        self.drain_seconds = delivery.drain_seconds
        self._source = source
        self._pipeline = pipeline
        self._policy = policy
        self._delivery = delivery
        self._counters = counters
        self._committer = committer
        self._owner = owner
        self._turns = Turns()
        self._commit_seconds = max(delivery.commit_interval_seconds, pipeline.flush_seconds)
        self._workers: dict[TopicPartition, Workers] = {}
        self._outlived: list[Workers] = []
        self._epoch = 0
        self._assigned = asyncio.Event()
        self._stopping = False
        self._draining = False
        self._doubtful = False
        self._revoking = asyncio.Lock()
        self._warned_unmatched_at = -WARN_UNMATCHED_SECONDS

    @property
    def partitions(self) -> dict[TopicPartition, Partition]:
        """The partitions owned now; also read by the supervisor's thread."""
        return {key: workers.partition for key, workers in list(self._workers.items())}

    @property
    def flushing(self) -> bool:
        """Whether commits wait for a handler's flush, or the last flush failed."""
        return self._committer.flushing

    def vitals(self) -> list[Vital]:
        """Return the state of every partition; called by the watchdog's thread, so it only reads."""
        now = time.monotonic()
        return [
            Vital(
                key=workers.partition.key,
                position=workers.partition.position or 0,
                done=workers.partition.done,
                committed=workers.partition.committed,
                commit_due=workers.partition.to_commit is not None,
                end_offset=workers.partition.lag.end_offset_at(now - MEASURED_WITHIN_SECONDS) or 0,
                idle=workers.idle,
                excused=workers.partition.ended or bool(workers.partition.holds),
            )
            for workers in list(self._workers.values())
            if workers.partition.started
        ]

    def waits_for(self) -> str:
        """Return what an idle event loop waits for: a state of ``loop_seconds_total``."""
        if self._draining:
            return "drain"
        workers = [each for each in list(self._workers.values()) if not each.partition.ended]
        if any(not each.idle or each.partition.held_records for each in workers):  # calls are under way
            return "backpressure"
        return "commit" if self._committer.busy else "poll"

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Start a new epoch with these partitions."""
        if self._stopping:
            return
        self._epoch += 1
        self._doubtful = False
        self._outlived = [workers for workers in self._outlived if workers.tasks]
        for key in keys:
            self._workers[key] = self._begin(Partition(key, self._epoch))
        self._assigned.set()

    def doubt(self, *, doubtful: bool) -> None:
        """Pause all partitions while this member may have been removed from the group; resume when it has not.

        A process that was suspended, or cut off from its group for longer than a session, may own nothing any more:
        other members may handle its records. If the group still has it as a member, only time was lost.
        """
        if doubtful == self._doubtful:
            return
        self._doubtful = doubtful
        if doubtful:
            log.warning("heartbeats_unanswered")
        else:
            log.warning("heartbeats_answered")
        for workers in self._workers.values():
            workers.work.gate.doubt(doubtful=doubtful)

    def _begin(self, partition: Partition) -> Workers:
        """Make the parts of one partition, bottom up, and start them."""
        key, routes = partition.key, self._pipeline.routes
        gate, tasks = Gate(partition), Tasks(partition, self._owner)
        failure_handler = FailureHandler(gate, Failures(self._policy, self), self._counters, tasks)
        batched = [route for route in routes if route.handler.takes_batches]
        max_bytes = max(1, self._delivery.max_in_flight_bytes // 2)
        most = max(1, self._delivery.max_in_flight_records // 2)
        collecting = {route.name: Collecting(partition, route.handler, max_bytes, most) for route in batched}
        dispatch = Dispatch(
            self._pipeline, key, self._counters, collecting, failure_handler.undecodable, self._unmatched(key)
        )
        batches = [
            BatchCalls(route, collecting[route.name], dispatch, failure_handler, tasks, self._turns)
            for route in batched
        ]
        partition.batches = batches
        work = Work(gate, self._source, dispatch, batches, failure_handler, self, tasks)
        workers = Workers(work, self._delivery, self._turns)
        # A call of an earlier epoch that did not end, though cancelled, still works on this partition.
        workers.begin([task for old in self._outlived if old.partition.key == key for task in old.tasks])
        return workers

    async def revoke(self, *, lost: bool) -> None:
        """End the epoch: drain, commit what is done unless the partitions are lost, and drop the partitions."""
        async with self._revoking:  # a stop may run into a rebalance: the later one finds nothing to do
            self._draining = True
            try:
                abandoned = await self._drain(lost=lost)
                if not lost:
                    await self._committer.commit(self.partitions.values(), COMMIT_BUDGET_SECONDS)
                flushing = await self._committer.end()
            finally:
                self._draining = False
            self._outlived += [workers for workers in self._workers.values() if workers.tasks]
            self._workers.clear()
        if not self._stopping:
            return
        if abandoned:
            seconds = self._delivery.drain_seconds
            self._owner.fail(
                StuckCallError(f"{abandoned} calls did not end within delivery.drain_seconds = {seconds:g}")
            )
        if flushing is not None:
            self._owner.fail(
                StuckCallError(f"the flush of route {flushing!r} did not end; the records it holds are not committed")
            )

    async def stop(self) -> None:
        """Take no more records, drain and commit as in ``revoke``; afterwards the client may leave the group."""
        self._stopping = True
        await self.revoke(lost=False)
        self.stuck_calls = sum(len(workers.tasks) for workers in self._outlived)

    async def _drain(self, *, lost: bool) -> int:
        """Wait up to ``drain_seconds`` for what was started, then cancel it; return how many calls did not end in time.

        Records that had queued, and batches that were collected, may begin during the drain; they are not counted.
        """
        owned = list(self._workers.values())
        for workers in owned:
            workers.close(lost=lost)
        await until_ended(self._running, self._delivery.drain_seconds)
        running = self._running()
        overdue = sum(workers.overdue for workers in owned)
        for workers in owned:
            workers.end()
        if running:
            log.warning("calls_abandoned", calls=overdue, seconds=self._delivery.drain_seconds)
            for counts in self._counters.routes.values():
                counts.abandoned += counts.waiting
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_GRACE_SECONDS)
        return overdue

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for workers in self._workers.values() for task in workers.tasks]

    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None:
        """Halt a partition because the source cannot go on with it."""
        if key in self._workers:
            self.halt_partition(self._workers[key].partition, reason, offset, explanation, offset)

    def halt_partition(
        self, partition: Partition, reason: HaltReason, offset: int, explanation: str, next_offset: int
    ) -> None:
        """Halt one partition; depending on ``on_halt`` the others go on, or the process ends."""
        if partition.halt is not None:
            return
        partition.halt = Halt(reason, offset, explanation, DRAINS)
        workers = self._workers.get(partition.key)
        if workers is None or workers.partition is not partition:
            self._say_halted(partition, partition.halt, next_offset)
            return
        workers.halted()
        workers.work.tasks.spawn(self._end_halt(workers, partition.halt, next_offset))

    async def _end_halt(self, workers: Workers, halt: Halt, next_offset: int) -> None:
        """Wait for what a halt still finishes; the command that it prints may pass nothing else."""
        try:
            await workers.drained(self._delivery.drain_seconds)
        finally:
            self._say_halted(workers.partition, halt, next_offset)

    def _say_halted(self, partition: Partition, halt: Halt, next_offset: int) -> None:
        (topic, number), (reason, offset, why, _) = partition.key, halt
        undone = partition.watermark.undone_below(offset, MOST_NAMED + 1) if partition.started else []
        remedy = name_passed(self._policy.remedy(partition.key, reason, next_offset), undone)
        partition.halt = halt._replace(remedy=remedy)
        log.error(
            "partition_halted",
            topic=topic,
            partition=number,
            offset=offset,
            reason=reason.value,
            why=why,
            remedy=remedy,
        )
        if self._delivery.on_halt == "exit":
            at = f"topic {topic}, partition {number}, offset {offset}"
            self._owner.fail(PartitionHaltedError(f"{at}: {why}; {remedy}"))

    def halt_all(self, reason: HaltReason, explanation: str) -> None:
        for workers in list(self._workers.values()):
            done = max(0, workers.partition.done)
            self.halt_partition(workers.partition, reason, done, explanation, done)

    def _unmatched(self, key: TopicPartition) -> Callable[[int], None]:
        def warn(offset: int) -> None:
            if self._pipeline.choose is None and time.monotonic() - self._warned_unmatched_at >= WARN_UNMATCHED_SECONDS:
                self._warned_unmatched_at = time.monotonic()
                log.warning("event_unmatched", partition=str(key), offset=offset)

        return warn

    async def poll_forever(self) -> None:
        """Wake idle workers when there is data for them; busy workers take their next chunk themselves.

        Records that a slow partition does not take stay in the client's buffer, and the client fetches no more of that
        partition.
        """
        while not self._stopping:
            self._counters.last_poll_timestamp = time.time()
            await self._source.wait([key for key, workers in self._workers.items() if workers.idle], POLL_SECONDS)
            for key, workers in self._workers.items():
                if workers.idle and self._source.ready(key):
                    workers.wake()

    async def commit_forever(self) -> None:
        """Commit what is done, once per interval."""
        while True:
            await asyncio.sleep(self._commit_seconds)
            if not self._stopping:
                await self._committer.commit(self.partitions.values(), self._commit_seconds)

    async def measure_forever(self) -> None:
        """Ask for the partitions' end offsets every ``MEASURE_SECONDS``: for lag, and to notice a broker outage."""
        while True:
            for key, end_offset in (await self._source.end_offsets(list(self._workers))).items():
                if key in self._workers:
                    partition = self._workers[key].partition
                    partition.lag.ends_at(end_offset, partition.known_committed, time.monotonic(), time.time())
            self._assigned.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MEASURE_SECONDS):
                    await self._assigned.wait()
