"""The engine: owns the partitions, feeds their workers, drains and commits them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from consumer.delivery.batch import BatchCalls
from consumer.delivery.collecting import Collecting
from consumer.delivery.committer import Commits, Committer
from consumer.delivery.dispatch import Dispatch
from consumer.delivery.failure import FailureHandler, FailurePolicy, Failures
from consumer.delivery.gate import Gate
from consumer.delivery.pipeline import Pipeline, Pipelines
from consumer.delivery.tasks import Owner, Tasks, until_ended
from consumer.delivery.turns import Turns
from consumer.delivery.worker import Intake, Work, Workers
from consumer.errors import PartitionHaltedError, StuckCallError, counted
from consumer.observe.counters import Counters
from consumer.observe.remedy import DRAINS, MOST_NAMED, name_passed
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from consumer.settings.sections import Delivery

log = structlog.get_logger("consumer.delivery.engine")

CANCEL_GRACE_SECONDS = 1.0
"""How long a cancelled call may take to end before it counts as stuck."""
COMMIT_BUDGET_SECONDS = 4.0
"""Maximum wait for the answer to the last commit of an epoch, and minimum for its flushes."""
WARN_UNMATCHED_SECONDS = 60.0
POLL_SECONDS = 0.2


class Source(Intake, Commits, Protocol):
    """Origin of chunks and destination of commits."""

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when one of these partitions may have a chunk to take, or after about ``seconds``."""

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return a chunk."""


class Engine:
    """Owns the partitions of one daemon and their workers; lives inside the daemon's task group.

    When ``revoke`` returns, no commit of the old epoch is in progress, and all work has ended except calls that do not
    react to their cancellation. Such a call blocks its partition in the next epoch until it ends.
    """

    def __init__(
        self,
        source: Source,
        pipelines: Pipelines,
        policy: FailurePolicy,
        delivery: Delivery,
        counters: Counters,
        committer: Committer,
        owner: Owner,
    ) -> None:
        self.stuck_calls = 0
        """Calls still running after the stop, though they were cancelled."""
        self.drain_seconds = delivery.drain_seconds
        self.fuse = policy.fuse
        self.committer = committer
        self.commit_seconds = max(delivery.commit_interval_seconds, pipelines.flush_seconds)
        self._source = source
        self._pipelines = pipelines
        self._policy = policy
        self._delivery = delivery
        self._counters = counters
        self._owner = owner
        self._turns = Turns()
        self._workers: dict[TopicPartition, Workers] = {}
        self.leaving: dict[Workers, asyncio.Future[None]] = {}
        """Partitions whose epoch is being ended, and what is done when it has."""
        self._outlived: list[Workers] = []
        self._epoch = 0
        self._commit_soon = asyncio.Event()
        self._stopping = False
        self._doubtful = False
        self._warned_unmatched_at = -WARN_UNMATCHED_SECONDS

    @property
    def partitions(self) -> dict[TopicPartition, Partition]:
        """The partitions owned now; also read by the supervisor's thread."""
        return {workers.partition.key: workers.partition for workers in self.workers}

    @property
    def workers(self) -> list[Workers]:
        """The workers of the partitions owned now; also read by the supervisor's thread."""
        return list(self._workers.values())

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Begin an epoch of each of these partitions; the others go on."""
        if self._stopping:
            return
        self._epoch += 1
        self._outlived = [workers for workers in self._outlived if workers.tasks]
        for key in keys:
            self._workers[key] = self._begin(Partition(key, self._epoch))

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
        key, pipeline = partition.key, self._pipelines.of(partition.key.topic)
        gate, tasks = Gate(partition), Tasks(partition, self._owner)
        failure_handler = FailureHandler(gate, Failures(self._policy, self), self._counters, tasks)
        batched = [route for route in pipeline.routes if route.handler.takes_batches]
        collecting = {route.name: Collecting(partition, route.handler, self._delivery) for route in batched}
        dispatch = Dispatch(
            pipeline, key, self._counters, collecting, failure_handler.undecodable, self._unmatched(key, pipeline)
        )
        batches = [
            BatchCalls(route, collecting[route.name], dispatch, failure_handler, tasks, self._turns)
            for route in batched
        ]
        partition.batches = batches
        work = Work(gate, self._source, dispatch, batches, failure_handler, self, tasks)
        workers = Workers(work, self._delivery, self._turns)
        if self._doubtful:
            gate.doubt(doubtful=True)
        # A call of an earlier epoch that did not end, though cancelled, still works on this partition.
        workers.begin([task for old in self._outlived if old.partition.key == key for task in old.tasks])
        return workers

    async def revoke(self, keys: Collection[TopicPartition] | None = None, *, lost: bool) -> None:
        """End the epochs of these partitions, or of all: drain, commit what is done unless they are lost, drop them.

        The others go on. A stop may run into a rebalance: what another call is ending already is waited for.
        """
        named = [workers for key, workers in self._workers.items() if keys is None or key in keys]
        if lost:  # also those that another call is ending: nothing more may start or be committed
            for each in named:
                each.partition.fenced = True
                each.work.gate.close(lost=True)
        others = {self.leaving[each] for each in named if each in self.leaving}
        if leaving := [each for each in named if each not in self.leaving]:
            await self._end_epochs(leaving, lost=lost)
        if others:
            await asyncio.wait(others)

    async def _end_epochs(self, leaving: Collection[Workers], *, lost: bool) -> None:
        partitions = [workers.partition for workers in leaving]
        ended = asyncio.get_running_loop().create_future()
        self.leaving |= dict.fromkeys(leaving, ended)
        deadline = time.monotonic() + self._delivery.drain_seconds
        try:
            abandoned = await self._drain(leaving, lost=lost)
            if not lost:
                flush_until = max(deadline, time.monotonic() + COMMIT_BUDGET_SECONDS)
                await self.committer.commit(partitions, flush_until, COMMIT_BUDGET_SECONDS)
            flushing = await self.committer.end(partitions)
            for workers in leaving:
                del self._workers[workers.partition.key]
            self._outlived += [workers for workers in leaving if workers.tasks]
        finally:
            for workers in leaving:
                del self.leaving[workers]
            ended.set_result(None)
        if not self._stopping:
            return
        if abandoned:
            seconds = self._delivery.drain_seconds
            self._owner.fail(
                StuckCallError(f"{counted(abandoned, 'call')} did not end within delivery.drain_seconds = {seconds:g}")
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

    async def _drain(self, leaving: Collection[Workers], *, lost: bool) -> int:
        """Wait up to ``drain_seconds`` for what was started, then cancel it; return how many calls did not end in time.

        Records that had queued, and batches that were collected, may begin during the drain; they are not counted.
        """

        def running() -> list[asyncio.Task[None]]:
            return [task for workers in leaving for task in workers.tasks]

        for workers in leaving:
            workers.close(lost=lost)
        await until_ended(running, self._delivery.drain_seconds)
        overdue = sum(workers.overdue for workers in leaving)
        for workers in leaving:
            workers.end()
        if left := running():
            log.warning("calls_abandoned", calls=overdue, seconds=self._delivery.drain_seconds)
            for workers in leaving:
                workers.abandon()
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CANCEL_GRACE_SECONDS)
        return overdue

    def settles(self, key: TopicPartition) -> bool:
        """Whether every record that was delivered of a partition has its outcome, and that is committed.

        Call it before the position is reset. It calls the collected batches and begins a commit.
        """
        workers = self._workers.get(key)
        if workers is None or self._doubtful or not workers.settles():
            return False
        if workers.partition.to_commit is not None and not workers.asked_to_commit:
            workers.asked_to_commit = True  # once: a flush that fails is tried again in an interval
            self._commit_soon.set()
        return workers.partition.to_commit is None

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
        partition.halt = Halt(reason, offset, explanation, DRAINS, time.time(), next_offset)
        workers = self._workers.get(partition.key)
        if workers is None or workers.partition is not partition:
            self._say_halted(partition, partition.halt)
            return
        workers.halted()
        workers.work.tasks.spawn(self._end_halt(workers, partition.halt))

    async def _end_halt(self, workers: Workers, halt: Halt) -> None:
        """Wait for what a halt still finishes; the command that it prints may pass nothing else."""
        try:
            await workers.drained(self._delivery.drain_seconds)
        finally:
            self._say_halted(workers.partition, halt)

    def _say_halted(self, partition: Partition, halt: Halt) -> None:
        (topic, number), (reason, offset, why, *_) = partition.key, halt
        undone = partition.watermark.undone_below(offset, MOST_NAMED + 1) if partition.started else []
        remedy = name_passed(self._policy.remedy(partition.key, reason, halt.next_offset), undone)
        partition.halt = halt._replace(remedy=remedy, undone=tuple(undone))
        log.error(
            "partition_halted",
            topic=topic,
            partition=number,
            offset=offset if offset >= 0 else None,
            reason=reason.value,
            why=why,
            remedy=remedy,
        )
        if self._delivery.on_halt == "exit":
            at = f"topic {topic}, partition {number}" + (f", offset {offset}" if offset >= 0 else "")
            self._owner.fail(PartitionHaltedError(f"{at}: {why}; {remedy}"))

    def halt_all(self, reason: HaltReason, explanation: str) -> None:
        for workers in self.workers:
            done = max(0, workers.partition.done)
            self.halt_partition(workers.partition, reason, done, explanation, done)

    def _unmatched(self, key: TopicPartition, pipeline: Pipeline) -> Callable[[int], None]:
        def warn(offset: int) -> None:
            if pipeline.choose is None and time.monotonic() - self._warned_unmatched_at >= WARN_UNMATCHED_SECONDS:
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
            await self._source.wait([key for key, workers in self._workers.items() if workers.wants], POLL_SECONDS)
            for key, workers in self._workers.items():
                if workers.wants and self._source.ready(key):
                    workers.wake()

    async def commit_forever(self) -> None:
        """Commit what is done, once per interval and before a position is reset."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.commit_seconds):
                    await self._commit_soon.wait()
            self._commit_soon.clear()
            if not self._stopping:
                until = time.monotonic() + self.commit_seconds
                await self.committer.commit(self.partitions.values(), until, self.commit_seconds, all_owned=True)
