"""Commits of offsets: note what is done, flush the handlers, send. Only this module commits, one commit at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import structlog

from consumer.errors import place_of
from consumer.observe.counters import Counters
from consumer.partition.state import Partition
from consumer.record import TopicPartition

log = structlog.get_logger("consumer.delivery.committer")

ANSWER_SECONDS = 1.0
CANCEL_SECONDS = 1.0
WARN_SECONDS = 30.0


class Commits(Protocol):
    """Destination of commits: the source."""

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets (next to read); return only when the result is known."""


class Flush(NamedTuple):
    """The flush of one route's handler."""

    route: str
    since: float
    """Monotonic time at which it began, or failed."""
    failed: bool = False


class _Commit:
    """One commit, from the offsets that it noted to the broker's answer."""

    def __init__(self, noted: Sequence[tuple[Partition, int]], all_owned: bool) -> None:
        self.noted = noted
        self.all_owned = all_owned
        """Whether every owned partition was asked for what it has to commit."""
        self.flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once every handler is flushed and the offsets are on their way."""
        self.task: asyncio.Task[None]
        """Set as soon as the commit is begun."""
        self.given_up = False

    @property
    def owned(self) -> dict[TopicPartition, int]:
        """The offsets of the partitions whose epochs have not ended."""
        return {each.key: offset for each, offset in self.noted if not each.fenced}

    async def wait(self, flush_until: float, seconds: float) -> None:
        """Wait for the flushes until ``flush_until`` (monotonic), and then at most ``seconds`` for the answer.

        The whole takes no longer than a second after ``flush_until``, however late the flushes were.
        """
        left = max(0.0, flush_until - time.monotonic())
        await asyncio.wait([self.flushed, self.task], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self.flushed.done():
            left = max(0.0, min(seconds, flush_until + ANSWER_SECONDS - time.monotonic()))
            await asyncio.wait([self.task], timeout=left)


class Committer:
    """Commits the watermarks of an engine's partitions; owned by the engine and as long-lived.

    Invariants:
    - a commit contains only offsets that were noted before the handlers were flushed
    - at most one commit is in progress; a later one waits for it
    - after ``end`` no commit of the ended epochs is in progress, and none is sent
    """

    def __init__(
        self,
        commits: Commits,
        flushes: Mapping[str, Callable[[], Awaitable[None]]],
        counters: Counters,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """``flushes`` are keyed by route name."""
        self.cleared_at = time.monotonic()
        """Monotonic time at which nothing was left to commit, later by the time of the flushes since."""
        self.flush: Flush | None = None
        """The flush that commits wait for: it is under way, or it failed and is tried again."""
        self._commits = commits
        self._flushes = flushes
        self._counters = counters
        self._tasks = tasks
        self._latest: _Commit | None = None
        self._warned_at = float("-inf")

    async def commit(
        self, partitions: Collection[Partition], flush_until: float, seconds: float, *, all_owned: bool = False
    ) -> None:
        """Commit what is done now: flush until ``flush_until`` (monotonic), then wait ``seconds`` for the answer.

        After that the commit goes on in the background: its answer may be late, and it may still succeed at the broker.
        A second one beside it could be overtaken by it, and the group's offset would fall back. So the next commit
        waits until the first has ended, however long that takes.
        """
        # In a loop: another caller may have started the next commit during the wait.
        while noted := [(each, at) for each in partitions if not each.fenced and (at := each.to_commit) is not None]:
            other = self._current
            if other is None:
                break
            await other.wait(flush_until, seconds)
            if not other.task.done():
                self._warn()
                return
        if not noted:
            self._clear(all_owned)
            return
        self._latest = commit = _Commit(noted, all_owned)
        commit.task = self._tasks.create_task(self._commit(commit))
        await commit.wait(flush_until, seconds)

    def _warn(self) -> None:
        """Log that commits wait, and for which flush; at most every ``WARN_SECONDS``."""
        if time.monotonic() - self._warned_at > WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("commit_slow", flushing=self._flushing)

    def _clear(self, all_owned: bool) -> None:
        """Note that nothing is left to commit; a commit of some partitions says nothing of the others."""
        if all_owned:
            self.cleared_at = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a commit is in progress."""
        return self._current is not None

    @property
    def _current(self) -> _Commit | None:
        latest = self._latest
        return latest if latest is not None and not latest.task.done() else None

    @property
    def _flushing(self) -> str | None:
        """The route whose flush is under way."""
        return self.flush.route if self.flush is not None and not self.flush.failed else None

    async def end(self, partitions: Collection[Partition]) -> str | None:
        """End the epochs of these partitions: nothing more is committed for them.

        A commit that is on its way with one of them is cancelled, or the client would retry it with the generation of
        the next epoch; the partitions that stay are committed again in an interval. A flush goes on for those that
        stay. Return the route whose flush was cancelled, if any.
        """
        for each in partitions:
            each.fenced = True
        commit = self._current
        if commit is None or len(commit.owned) == len(commit.noted) or (commit.owned and not commit.flushed.done()):
            return None
        commit.given_up, given_up = True, self._flushing
        log.warning("commit_given_up", flushing=given_up)
        self._counters.commits["failed"] += 1
        commit.task.cancel()
        await asyncio.wait([commit.task], timeout=CANCEL_SECONDS)
        return given_up

    async def _commit(self, commit: _Commit) -> None:
        began = time.monotonic()
        is_flushed = await self._flush(commit)
        self.cleared_at += time.monotonic() - began
        if not is_flushed:
            return
        commit.flushed.set_result(None)
        sent, began = commit.owned, time.monotonic()
        if not sent:
            return
        result = await self._commits.commit(sent)
        self._counters.commit_seconds.observe(time.monotonic() - began)
        self._counters.commits[result] += 1
        if result == "ok":
            self._clear(commit.all_owned)
            self._counters.last_commit_timestamp = time.time()
            for partition, offset in commit.noted:
                if not partition.fenced:
                    partition.commit(offset)

    async def _flush(self, commit: _Commit) -> bool:
        """Flush all handlers; return False if a flush failed, and then nothing may be committed."""
        for route, flush in self._flushes.items():
            self.flush = Flush(route, time.monotonic())
            try:
                await flush()
            except (Exception, asyncio.CancelledError) as error:
                self.flush = Flush(route, time.monotonic(), failed=True)
                if isinstance(error, asyncio.CancelledError) and commit.given_up:
                    raise  # by ``end``; any other cancellation was raised by the flush itself
                log.warning("flush_failed", route=route, why=place_of(error))
                self._counters.commits["failed"] += 1
                return False
        self.flush = None
        return True
