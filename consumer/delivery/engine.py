"""The engine: owns the partitions, feeds their lanes, drains and commits them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from consumer.delivery.batch import RouteBatch
from consumer.delivery.committer import Commits, Committer
from consumer.delivery.dispatch import make_dispatch
from consumer.delivery.failure import FailurePolicy, Failures
from consumer.delivery.fast_loop import CallTarget, FastLoop, make_fast_loop
from consumer.delivery.lanes import Intake, Lanes
from consumer.delivery.pipeline import Pipeline
from consumer.delivery.turns import Turns
from consumer.errors import ConsumerError, PartitionHaltedError, StuckCallError, place_of
from consumer.observe.counters import Counters
from consumer.observe.watchdog import Vital
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from consumer.routes.route import Route, is_single
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


class Owner(Protocol):
    """Owner of an engine: provides its task group, and ends it."""

    tasks: asyncio.TaskGroup

    def fail(self, error: Exception) -> None:
        """Drain and end with this error."""


class Engine:
    """Owns the partitions of one daemon and their lanes; lives inside the daemon's task group.

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
        self._lanes: dict[TopicPartition, Lanes] = {}
        self._outlived: list[Lanes] = []
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
        return {key: lanes.partition for key, lanes in list(self._lanes.items())}

    @property
    def flushing(self) -> bool:
        """Whether commits wait for a handler's flush, or the last flush failed."""
        return self._committer.flushing

    def vitals(self) -> list[Vital]:
        """Return the state of every partition; called by the watchdog's thread, so it only reads."""
        now = time.monotonic()
        return [
            Vital(
                key=lanes.partition.key,
                position=lanes.partition.position or 0,
                done=lanes.partition.done,
                committed=lanes.partition.committed,
                commit_due=lanes.partition.to_commit is not None,
                end_offset=lanes.partition.lag.end_offset_at(now - MEASURED_WITHIN_SECONDS) or 0,
                idle=lanes.idle,
                excused=lanes.partition.ended or bool(lanes.partition.holds),
            )
            for lanes in list(self._lanes.values())
            if lanes.partition.started
        ]

    def waits_for(self) -> str:
        """Return what an idle event loop waits for: a state of ``loop_seconds_total``."""
        if self._draining:
            return "drain"
        lanes = [each for each in list(self._lanes.values()) if not each.partition.ended]
        if any(not each.idle or each.partition.held_records for each in lanes):  # calls are under way
            return "backpressure"
        return "commit" if self._committer.busy else "poll"

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Start a new epoch with these partitions."""
        if self._stopping:
            return
        self._epoch += 1
        self._doubtful = False
        self._outlived = [lanes for lanes in self._outlived if lanes.tasks]
        for key in keys:
            self._lanes[key] = self._begin(Partition(key, self._epoch))
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
        for lanes in self._lanes.values():
            lanes.gate.doubt(doubtful=doubtful)

    def _begin(self, partition: Partition) -> Lanes:
        key, counters, pipeline = partition.key, self._counters, self._pipeline
        only = (pipeline.only.name, counters.routes[pipeline.only.name]) if pipeline.only is not None else None
        begin_task, failures = partial(self._begin_task, partition), Failures(self._policy, self)
        lanes = Lanes(partition, self._source, self._delivery, self._turns, counters, begin_task, failures)
        max_bytes = max(1, self._delivery.max_in_flight_bytes // 2)
        batches = {
            route.name: RouteBatch(
                route,
                lanes.failure_handler,
                counters.routes[route.name],
                lanes.spawn,
                lanes.gate.wake,
                lanes.decode_and_route,
                max_bytes,
            )
            for route in pipeline.routes
            if route.handler.takes_batches
        }
        calls = make_dispatch(pipeline, partition, counters, batches, self._unmatched(key))
        fast_loop = self._make_fast_loop(key, batches, pipeline.only) if pipeline.only is not None else None
        # A call of an earlier epoch that did not end, though cancelled, still works on this partition.
        earlier = [task for old in self._outlived if old.partition.key == key for task in old.tasks]
        lanes.begin(calls, fast_loop, list(batches.values()), only, earlier)
        return lanes

    def _make_fast_loop(self, key: TopicPartition, batches: Mapping[str, RouteBatch], route: Route) -> FastLoop | None:
        """Make the fast loop if no call can wait between two records: a plain function, or batches."""
        handler = route.handler
        if handler.is_async and not handler.takes_batches:
            return None
        target = CallTarget(handler.call, handler.wants_record, batches.get(route.name))
        decoder, unmatched = self._pipeline.decoder, self._unmatched(key)
        return make_fast_loop(route.name, key, target, route.matches, decoder, self._counters, unmatched)

    def _begin_task(self, partition: Partition, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Start a task of a partition; None if the task group is already shutting down.

        An error of this program in the task drains the daemon; the task group would cancel all work at once.
        """

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                log.error("partition_task_failed", error=place_of(error))  # noqa: TRY400
                self._owner.fail(error)
            except asyncio.CancelledError:
                # Without a drain or a shutdown of the task group, a handler has cancelled the task it was called in,
                # and returned before the cancellation took effect. The partition would be owned, and nothing consumed.
                if not partition.over and self._begin_task(partition, asyncio.sleep(0)) is not None:
                    self._owner.fail(
                        ConsumerError(f"{partition.key}: a handler cancelled the task that it was called in")
                    )
                raise

        guard = guarded()
        try:
            return self._owner.tasks.create_task(guard)
        except RuntimeError:
            guard.close()
            work.close()
            return None

    async def revoke(self, *, lost: bool) -> None:
        """End the epoch: drain, commit what is done unless the partitions are lost, and drop the partitions."""
        async with self._revoking:  # a stop may run into a rebalance: the later one finds nothing to do
            self._draining = True
            try:
                abandoned = await self._drain()
                if not lost:
                    await self._committer.commit(self.partitions.values(), COMMIT_BUDGET_SECONDS)
                flushing = await self._committer.end()
            finally:
                self._draining = False
            self._outlived += [lanes for lanes in self._lanes.values() if lanes.tasks]
            self._lanes.clear()
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
        self.stuck_calls = sum(len(lanes.tasks) for lanes in self._outlived)

    async def _drain(self) -> int:
        """Wait up to ``drain_seconds`` for started calls, then cancel them; return how many did not end in time."""
        for lanes in self._lanes.values():
            lanes.close()
        deadline = time.monotonic() + self._delivery.drain_seconds
        while (running := self._running()) and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(running, timeout=left)
        for lanes in self._lanes.values():
            lanes.partition.over = True
        if running:
            log.warning("calls_abandoned", calls=len(running), seconds=self._delivery.drain_seconds)
            if is_single(self._pipeline.routes):
                self._counters.routes[self._pipeline.routes[0].name].abandoned += len(running)
            else:
                for counts in self._counters.routes.values():
                    counts.abandoned += counts.waiting
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_GRACE_SECONDS)
        return len(running)

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for lanes in self._lanes.values() for task in lanes.tasks]

    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None:
        """Halt a partition because the source cannot go on with it."""
        if key in self._lanes:
            self.halt_partition(self._lanes[key].partition, reason, offset, explanation, offset)

    def halt_partition(
        self, partition: Partition, reason: HaltReason, offset: int, explanation: str, next_offset: int
    ) -> None:
        """Halt one partition; depending on ``on_halt`` the others go on, or the process ends."""
        if partition.halt is not None:
            return
        key = partition.key
        remedy = self._policy.remedy(key, reason, next_offset)
        partition.stop_at(Halt(reason, offset, explanation, remedy))
        if key in self._lanes and self._lanes[key].partition is partition:
            self._lanes[key].gate.wake()
        log.error(
            "partition_halted",
            topic=key.topic,
            partition=key.partition,
            offset=offset,
            reason=reason.value,
            why=explanation,
            remedy=remedy,
        )
        if self._delivery.on_halt == "exit":
            where = f"topic {key.topic}, partition {key.partition}, offset {offset}"
            self._owner.fail(PartitionHaltedError(f"{where}: {explanation}; {remedy}"))

    def halt_all(self, reason: HaltReason, explanation: str) -> None:
        for lanes in list(self._lanes.values()):
            done = max(0, lanes.partition.done)
            self.halt_partition(lanes.partition, reason, done, explanation, done)

    def _unmatched(self, key: TopicPartition) -> Callable[[int], None]:
        def warn(offset: int) -> None:
            if self._pipeline.choose is None and time.monotonic() - self._warned_unmatched_at >= WARN_UNMATCHED_SECONDS:
                self._warned_unmatched_at = time.monotonic()
                log.warning("event_unmatched", partition=str(key), offset=offset)

        return warn

    async def poll_forever(self) -> None:
        """Wake idle lanes when there is data for them; busy lanes take their next chunk themselves.

        Records that a slow partition does not take stay in the client's buffer, and the client fetches no more of that
        partition.
        """
        while not self._stopping:
            self._counters.last_poll_timestamp = time.time()
            await self._source.wait([key for key, lanes in self._lanes.items() if lanes.idle], POLL_SECONDS)
            for key, lanes in self._lanes.items():
                if lanes.idle and self._source.ready(key):
                    lanes.gate.wake()

    async def commit_forever(self) -> None:
        """Commit what is done, once per interval."""
        while True:
            await asyncio.sleep(self._commit_seconds)
            if not self._stopping:
                await self._committer.commit(self.partitions.values(), self._commit_seconds)

    async def measure_forever(self) -> None:
        """Ask for the partitions' end offsets every ``MEASURE_SECONDS``: for lag, and to notice a broker outage."""
        while True:
            for key, end_offset in (await self._source.end_offsets(list(self._lanes))).items():
                if key in self._lanes:
                    partition = self._lanes[key].partition
                    partition.lag.ends_at(end_offset, partition.known_committed, time.monotonic(), time.time())
            self._assigned.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MEASURE_SECONDS):
                    await self._assigned.wait()
