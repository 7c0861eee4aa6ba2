"""The only one who commits: notes what is done, has it flushed, sends it, one commit at a time."""

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
    """Where commits go."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets to read next; returns only when the outcome is known."""


class Committer:
    """Owned by the engine, as long-lived.

    Invariants:
    - a commit holds only offsets that were noted before every handler's flush returned
    - at most one commit is on its way; a later one waits for it
    - after ``end`` none of the epoch is on its way
    """

    def __init__(
        self,
        commits: Commits,
        flushes: Mapping[str, Callable[[], Awaitable[None]]],
        counters: Counters,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """``flushes`` are by route."""
        self._commits = commits
        self._flushes = flushes
        self._counters = counters
        self._tasks = tasks
        self._under_way: asyncio.Task[None] | None = None
        self._flushing: str | None = None
        self._flush_failed = False
        self._epoch = 0
        self._warned_at = float("-inf")

    async def commit(self, partitions: Collection[Partition], seconds: float) -> None:
        """Begin a commit of what is done by now and wait at most ``seconds``; it goes on alone after that.

        A commit whose answer is late may still succeed at the broker. A second one beside it could be overtaken by it,
        and the group's offset would fall back: so the next waits until the first has ended, however long that takes.
        """
        epoch, deadline = self._epoch, time.monotonic() + seconds
        # In a loop: another may have begun the next one meanwhile, with what was done by then.
        while self._under_way is not None and not self._under_way.done():
            await asyncio.wait([self._under_way], timeout=max(0.0, deadline - time.monotonic()))
            if epoch != self._epoch:
                return  # these partitions are no longer ours
            if not self._under_way.done() and time.monotonic() >= deadline:
                self._warn()
                return
        self._under_way = self._tasks.create_task(self._commit(list(partitions), epoch))
        await asyncio.wait([self._under_way], timeout=max(0.0, deadline - time.monotonic()))

    def _warn(self) -> None:
        """Say, at most now and then, that commits wait, and for what."""
        if time.monotonic() - self._warned_at > WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("commit_slow", flushing=self._flushing)

    @property
    def busy(self) -> bool:
        """Whether a commit is on its way."""
        return self._under_way is not None and not self._under_way.done()

    @property
    def flushing(self) -> bool:
        """Whether a flush is under way, or the last one failed: what is not committed then is the handler's matter."""
        return self._flushing is not None or self._flush_failed

    async def end(self) -> str | None:
        """Leave no commit behind an epoch: the client would send it again under the next one's generation.

        Returns the route whose flush had to be given up, if that is what the commit waited for.
        """
        self._epoch += 1
        if self._under_way is None or self._under_way.done():
            return None
        given_up = self._flushing
        log.warning("commit_given_up", flushing=given_up)
        self._counters.commits["failed"] += 1
        self._under_way.cancel()
        await asyncio.wait([self._under_way], timeout=CANCEL_SECONDS)
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
        """Make durable what handlers keep; False when one could not, and then nothing may be committed."""
        for route, flush in self._flushes.items():
            self._flushing = route
            try:
                await flush()
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and epoch != self._epoch:
                    raise  # ours; any other is the flush's own
                log.warning("flush_failed", route=route, why=place_of(error))
                self._counters.commits["failed"] += 1
                self._flush_failed = True
                return False
            finally:
                self._flushing = None
        self._flush_failed = False
        return True
