"""The flow: chunks in, each record decoded, routed and handled in partition order, and what is done committed.

One task polls, one a partition works, one commits. Everything else (HTTP, signals, life and death) is elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from inspect import isawaitable
from typing import Any, Literal, Protocol

import msgspec
import structlog

from consumer.errors import DecodeError, PartitionHaltedError, StuckCallError
from consumer.handler import Handler
from consumer.outcome import HaltReason, Outcome
from consumer.partition import Chunk, Halt, Partition
from consumer.record import Record, TopicPartition
from consumer.routing import Predicate
from consumer.settings import Delivery
from consumer.tally import Tally

log = structlog.get_logger("consumer.engine")

SLICE_SECONDS = 0.010
"""How long inline work may keep the event loop: heartbeats and HTTP share it."""
CANCEL_GRACE_SECONDS = 1.0
"""How long a cancelled call may take to end before it counts as stuck."""
COMMIT_BUDGET_SECONDS = 4.0
MEASURE_SECONDS = 3.0
WARN_UNMATCHED_SECONDS = 60.0


class Route(msgspec.Struct, frozen=True):
    """A match on events plus a handler, under a name."""

    name: str
    matches: Predicate | None
    handler: Handler


class Source(Protocol):
    """Where chunks come from and commits go to."""

    async def poll(self, room: Mapping[TopicPartition, int], wait_seconds: float) -> list[Chunk]:
        """Return chunks of the named partitions only, waiting at most about ``wait_seconds`` for the first."""

    def rewind(self, key: TopicPartition, offset: int) -> None:
        """Read a partition again from ``offset``: what was returned from there on could not be taken."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets to read next; returns only when the outcome is known."""

    async def end_offsets(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask the brokers where partitions end for this reader; empty when no broker answered in time."""


class Engine:
    """Owns the partitions of one daemon and the tasks that work on them; lives inside the daemon's task group.

    Invariants:
    - a record is finished only after every matching route handled it, or none wanted it
    - a commit holds only offsets below which all is done and flushed, of partitions owned in the current epoch
    - at most one commit is on its way; a later one waits for it
    - when ``revoke`` returns, no work and no commit of the old epoch goes on
    """

    def __init__(  # noqa: PLR0913 - the seven parts meet here
        self,
        *,
        source: Source,
        decode: Callable[[bytes], Any],
        routes: Collection[Route],
        delivery: Delivery,
        tally: Tally,
        tasks: asyncio.TaskGroup,
        fail: Callable[[Exception], None],
    ) -> None:
        self.partitions: dict[TopicPartition, Partition] = {}
        self.stuck_calls = 0
        self._source = source
        self._decode = decode
        self._routes = list(routes)
        self._delivery = delivery
        self._tally = tally
        self._tasks = tasks
        self._fail = fail
        self._epoch = 0
        self._workers: dict[asyncio.Task[None], Partition] = {}
        self._room_freed = asyncio.Event()
        self._assigned = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        self._stopping = False
        self._revoking = asyncio.Lock()
        self._warned_unmatched_at = -WARN_UNMATCHED_SECONDS

    # -- ownership -----------------------------------------------------------------------------------------------

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Begin a new epoch with these partitions."""
        if self._stopping:
            return
        self._epoch += 1
        for key in keys:
            # A call of an earlier epoch that would not end, cancelled or not, still works on this partition.
            earlier = [worker for worker, old in self._workers.items() if old.key == key and not worker.done()]
            partition = self.partitions[key] = Partition(key, self._epoch)
            self._workers[self._tasks.create_task(self._work(partition, earlier))] = partition
        self._assigned.set()

    async def revoke(self, *, lost: bool) -> None:
        """End the epoch: drain, commit what is done unless the partitions are lost, and forget them all."""
        async with self._revoking:  # a stop may meet a rebalance: the second finds nothing left to do
            abandoned = await self._drain()
            if not lost:
                await self.commit(COMMIT_BUDGET_SECONDS)
            await self._end_commit()
            self.partitions.clear()
        if abandoned and self._stopping:
            seconds = self._delivery.drain_seconds
            self._fail(StuckCallError(f"{abandoned} calls did not end within delivery.drain_seconds = {seconds:g}"))

    async def stop(self) -> None:
        """Take nothing more in, then drain and commit like a revoke; afterwards the group may be left."""
        self._stopping = True
        await self.revoke(lost=False)
        self.stuck_calls = len(self._workers)

    async def _drain(self) -> int:
        """Let started calls end within ``drain_seconds``; then cancel them and count what was left undone."""
        for partition in self.partitions.values():
            partition.close()
        if not self._workers:
            return 0
        _, running = await asyncio.wait(self._workers, timeout=self._delivery.drain_seconds)
        for worker in running:
            partition = self._workers[worker]
            route = partition.current_route or "none"
            self._tally.abandoned[route] += 1
            log.warning("call abandoned", partition=str(partition.key), offset=partition.done, route=route)
            worker.cancel()
        if running:
            await asyncio.wait(running, timeout=CANCEL_GRACE_SECONDS)
        self._workers = {worker: partition for worker, partition in self._workers.items() if not worker.done()}
        return len(running)

    # -- intake --------------------------------------------------------------------------------------------------

    async def poll_forever(self) -> None:
        """Bring chunks in, only from partitions with room; the rest stays buffered in the client."""
        while not self._stopping:
            self._tally.last_poll_timestamp = time.time()
            self._room_freed.clear()
            room = self._room()
            full = any(p.halt is None and key not in room for key, p in self.partitions.items())
            # A partition that is full now may have room in a millisecond, and its records may be buffered already:
            # then the wait for the others must be short.
            for chunk in await self._source.poll(room, 0.02 if full else 0.2):
                self._deliver(chunk)
            if full and not room:
                await _wait(self._room_freed, 0.1)

    def _room(self) -> dict[TopicPartition, int]:
        limits = self._delivery.max_in_flight_records, self._delivery.max_in_flight_bytes
        rooms = ((key, partition.room(*limits)) for key, partition in self.partitions.items())
        return {key: room for key, room in rooms if room > 0}

    def _deliver(self, chunk: Chunk) -> None:
        partition = self.partitions.get(chunk.key)
        if partition is None:
            # The client hands over records of a new assignment before it has told of that assignment: dropping them
            # would leave a hole below the next commit, so they are read again.
            self._source.rewind(chunk.key, chunk.records[0].offset if chunk.records else chunk.next_offset)
            return
        if partition.closing or partition.halt is not None:
            return
        topic = chunk.key.topic
        before = partition.in_flight_bytes
        partition.deliver(chunk)
        self._tally.records_consumed[topic] += len(chunk.records)
        self._tally.bytes_consumed[topic] += partition.in_flight_bytes - before

    # -- work ----------------------------------------------------------------------------------------------------

    async def _work(self, partition: Partition, earlier: Collection[asyncio.Task[None]]) -> None:
        """Handle one partition's records in order until it is closed or halts."""
        try:
            if earlier:
                await asyncio.wait(earlier)
            while not partition.closing and partition.halt is None:
                if partition.chunks:
                    await self._work_through(partition, partition.chunks.popleft())
                else:
                    partition.wake.clear()
                    await partition.wake.wait()
        except Exception as error:  # not a handler's: ours
            self._fail(error)

    async def _work_through(self, partition: Partition, chunk: Chunk) -> None:
        pause_at = time.monotonic() + SLICE_SECONDS
        for raw in chunk.records:
            if partition.closing or not await self._finish(partition, raw):
                return
            if time.monotonic() >= pause_at:
                self._room_freed.set()
                await asyncio.sleep(0)
                pause_at = time.monotonic() + SLICE_SECONDS
        partition.finish_chunk(chunk)
        self._room_freed.set()

    async def _finish(self, partition: Partition, raw: Any) -> bool:
        """Bring one record to its outcome; False when it has none and the partition halts."""
        try:
            await self._handle(partition, raw)
        except DecodeError as error:
            self._tally.decode_errors[partition.key.topic, error.reason] += 1
            self.halt(partition.key, HaltReason.NO_DEAD_LETTER, raw.offset, str(error))
            return False
        except _HandlerFailed as failed:
            self._tally.handler_errors[failed.route, "error"] += 1
            self.halt(partition.key, HaltReason.NO_DEAD_LETTER, raw.offset, str(failed))
            return False
        partition.finish(raw)
        return True

    async def _handle(self, partition: Partition, raw: Any) -> None:
        if raw.value is None:  # a tombstone
            self._tally.outcomes["none", Outcome.SKIPPED] += 1
            return
        event = self._decode(raw.value)
        unmatched = True
        for route in self._routes:
            if route.matches is None or route.matches(event):
                unmatched = False
                partition.current_route = route.name
                await self._call(route, event, partition.key, raw)
                self._tally.outcomes[route.name, Outcome.HANDLED] += 1
        if unmatched:
            self._tally.outcomes["none", Outcome.SKIPPED] += 1
            self._warn_unmatched(partition.key, raw.offset)

    async def _call(self, route: Route, event: Any, key: TopicPartition, raw: Any) -> None:
        handler = route.handler
        try:
            result = handler.call(event, _record_of(key, raw)) if handler.wants_record else handler.call(event)
            # A plain function may return a coroutine too (a lambda, a wrapper): left alone it would be a silent loss.
            if result is not None and (handler.is_async or isawaitable(result)):
                await result
        except GeneratorExit:
            raise
        except asyncio.CancelledError as error:
            # Two things look alike here: a drain that cancels this worker, and a handler that lets the cancellation of
            # some task of its own escape. Taking the second for the first would end the worker in silence, with its
            # partition owned, its heartbeats sent and nothing consumed.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _HandlerFailed(route.name, error) from error
        except BaseException as error:
            raise _HandlerFailed(route.name, error) from error

    def _warn_unmatched(self, key: TopicPartition, offset: int) -> None:
        if time.monotonic() - self._warned_unmatched_at >= WARN_UNMATCHED_SECONDS:
            self._warned_unmatched_at = time.monotonic()
            log.warning("no route matched an event; it is skipped", partition=str(key), offset=offset)

    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None:
        """Stop one partition where it is; the others go on, or the process ends, as ``on_halt`` says."""
        partition = self.partitions[key]
        partition.stop_at(Halt(reason, offset, explanation))
        log.error("partition halted", partition=str(key), offset=offset, reason=reason.value, why=explanation)
        if self._delivery.on_halt == "exit":
            where = f"topic {key.topic}, partition {key.partition}, offset {offset}"
            self._fail(PartitionHaltedError(f"{where}: {explanation}"))

    # -- commits -------------------------------------------------------------------------------------------------

    async def commit_forever(self) -> None:
        """Commit what is done, once each interval."""
        while True:
            await asyncio.sleep(self._delivery.commit_interval_seconds)
            if not self._stopping:
                await self.commit(self._delivery.commit_interval_seconds)

    async def commit(self, seconds: float) -> None:
        """Start a commit of what is done by now and wait at most ``seconds``; it goes on alone after that.

        A commit whose answer is late may still succeed at the broker. A second one beside it could be overtaken by it,
        and the group's offset would fall back: so the next waits until the first has ended, however long that takes.
        """
        deadline = time.monotonic() + seconds
        if self._committing is not None and not self._committing.done():
            await asyncio.wait([self._committing], timeout=seconds)
            if not self._committing.done():
                return
        self._committing = self._tasks.create_task(self._commit_done())
        await asyncio.wait([self._committing], timeout=max(0.0, deadline - time.monotonic()))

    async def _end_commit(self) -> None:
        """Leave no commit behind an epoch: the client would send it again under the next one's generation."""
        if self._committing is not None and not self._committing.done():
            log.warning("commit given up", seconds=COMMIT_BUDGET_SECONDS)
            self._tally.commits["failed"] += 1
            self._committing.cancel()
            await asyncio.wait([self._committing], timeout=CANCEL_GRACE_SECONDS)

    async def _commit_done(self) -> None:
        partitions = list(self.partitions.values())
        noted = {p.key: p.done for p in partitions if p.done > p.committed}
        if not noted or not await self._flush():
            return
        result = await self._source.commit(noted)
        self._tally.commits[result] += 1
        if result == "ok":
            self._tally.last_commit_timestamp = time.time()
            for partition in partitions:
                partition.committed = noted.get(partition.key, partition.committed)

    async def measure_forever(self) -> None:
        """Learn where the partitions end, every few seconds, for lag and to know that a broker is there."""
        while True:
            for key, end_offset in (await self._source.end_offsets(list(self.partitions))).items():
                if key in self.partitions:
                    self.partitions[key].end_offset = end_offset
            self._assigned.clear()
            await _wait(self._assigned, MEASURE_SECONDS)

    async def _flush(self) -> bool:
        """Make durable what handlers keep; False when one could not, and then nothing may be committed."""
        for route in self._routes:
            if route.handler.flush is not None:
                try:
                    await route.handler.flush()
                except Exception as error:
                    log.warning("flush failed; nothing is committed until it works", route=route.name, why=_name(error))
                    self._tally.commits["failed"] += 1
                    return False
        return True


class _HandlerFailed(Exception):  # noqa: N818 - an outcome on its way out of a call, not an error of ours
    """A handler raised; the message names the class and the place, never the text, which may quote the event."""

    def __init__(self, route: str, error: BaseException) -> None:
        super().__init__(f"the handler of route {route!r} raised {_name(error)}")
        self.route = route


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _name(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}{place}"


def _record_of(key: TopicPartition, raw: Any) -> Record:
    return Record(key.topic, key.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers))
