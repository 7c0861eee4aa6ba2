"""Commits of offsets: note what is done, flush the handlers, send. Only this module commits, one commit at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal, Protocol

import structlog

from consumer.errors import place_of
from consumer.observe.counters import Counters
from consumer.partition.state import Partition
from consumer.record import TopicPartition

log = structlog.get_logger("consumer.delivery.committer")

CANCEL_SECONDS = 1.0
WARN_SECONDS = 30.0


class Commits(Protocol):
    """Destination of commits: the source."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets (next to read); return only when the result is known."""


class Committer:
    """Commits the watermarks of an engine's partitions; owned by the engine and as long-lived.

    Invariants:
    - a commit contains only offsets that were noted before the handlers were flushed
    - at most one commit is in progress; a later one waits for it
    - after ``end`` no commit of the epoch is in progress
    """

    def __init__(
        self,
        commits: Commits,
        flushes: Mapping[str, Callable[[], Awaitable[None]]],
        counters: Counters,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """``flushes`` are keyed by route name."""
        self._commits = commits
        self._flushes = flushes
        self._counters = counters
        self._tasks = tasks
        self._commit_task: asyncio.Task[None] | None = None
        self._flushing: str | None = None
        self._flush_failed = False
        self._epoch = 0
        self._warned_at = float("-inf")

    async def commit(self, partitions: Collection[Partition], seconds: float) -> None:
        """Start a commit of what is done now and wait at most ``seconds``; after that it continues in the background.

        A commit whose answer is late may still succeed at the broker. A second one beside it could be overtaken by it,
        and the group's offset would fall back. So the next commit waits until the first has ended, however long that
        takes.
        """
        epoch, deadline = self._epoch, time.monotonic() + seconds
        # In a loop: another caller may have started the next commit during the wait.
        while self._commit_task is not None and not self._commit_task.done():
            await asyncio.wait([self._commit_task], timeout=max(0.0, deadline - time.monotonic()))
            if epoch != self._epoch:
                return  # these partitions are no longer owned
            if not self._commit_task.done() and time.monotonic() >= deadline:
                self._warn()
                return
        self._commit_task = self._tasks.create_task(self._commit(list(partitions), epoch))
        await asyncio.wait([self._commit_task], timeout=max(0.0, deadline - time.monotonic()))

    def _warn(self) -> None:
        """Log that commits wait, and for which flush; at most every ``WARN_SECONDS``."""
        if time.monotonic() - self._warned_at > WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("commit_slow", flushing=self._flushing)

    @property
    def busy(self) -> bool:
        """Whether a commit is in progress."""
        return self._commit_task is not None and not self._commit_task.done()

    @property
    def flushing(self) -> bool:
        """Whether a flush is in progress or the last one failed: the handler, not Kafka, then delays the commits."""
        return self._flushing is not None or self._flush_failed

    async def end(self) -> str | None:
        """End the commit in progress with its epoch: else the client would retry it with the next epoch's generation.

        Return the route whose flush was cancelled, if the commit waited for one.
        """
        self._epoch += 1
        if self._commit_task is None or self._commit_task.done():
            return None
        given_up = self._flushing
        log.warning("commit_given_up", flushing=given_up)
        self._counters.commits["failed"] += 1
        self._commit_task.cancel()
        await asyncio.wait([self._commit_task], timeout=CANCEL_SECONDS)
        return given_up

    async def _commit(self, partitions: Collection[Partition], epoch: int) -> None:
        # A partition that restarts lower while handlers flush, or while the brokers answer, has another watermark: an
        # offset of the log before belongs to neither.
        noted = [(each, each.watermark, offset) for each in partitions if (offset := each.to_commit) is not None]
        if not noted or not await self._flush(epoch) or epoch != self._epoch:
            return
        sent = {each.key: offset for each, watermark, offset in noted if each.watermark is watermark}
        if not sent:
            return
        began = time.monotonic()
        result = await self._commits.commit(sent)
        self._counters.commit_seconds.observe(time.monotonic() - began)
        self._counters.commits[result] += 1
        if result == "ok":
            self._counters.last_commit_timestamp = time.time()
            for partition, watermark, offset in noted:
                if partition.watermark is watermark:
                    partition.commit(offset)

    async def _flush(self, epoch: int) -> bool:
        """Flush all handlers; return False if a flush failed, and then nothing may be committed."""
        for route, flush in self._flushes.items():
            self._flushing = route
            try:
                await flush()
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and epoch != self._epoch:
                    raise  # by ``end``; any other cancellation was raised by the flush itself
                log.warning("flush_failed", route=route, why=place_of(error))
                self._counters.commits["failed"] += 1
                self._flush_failed = True
                return False
            finally:
                self._flushing = None
        self._flush_failed = False
        return True
