"""The tasks of one partition in one epoch: its workers, its batches, its dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

import structlog

from consumer.delivery.gate import PartitionEnded
from consumer.errors import ConsumerError, place_of
from consumer.partition.state import Partition, Phase

log = structlog.get_logger("consumer.delivery.tasks")


async def until_ended(running: Callable[[], Collection[asyncio.Task[None]]], seconds: float) -> None:
    """Wait until nothing runs any more, at most ``seconds``; what ends may have started more."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while (tasks := running()) and (left := deadline - clock()) > 0:
        await asyncio.wait(tasks, timeout=left)


class Owner(Protocol):
    """The owner of an engine: the task group of its tasks, and the way to end it."""

    tasks: asyncio.TaskGroup

    def fail(self, error: Exception) -> None:
        """Drain and end with this error."""


class Tasks:
    """Starts the tasks of a partition and knows those that have not ended; the drain waits for them."""

    def __init__(self, partition: Partition, owner: Owner) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._partition = partition
        self._owner = owner

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task; nothing starts when the task group is already shutting down."""
        guard = self._guard(work)
        try:
            task = self._owner.tasks.create_task(guard)
        except RuntimeError:
            guard.close()
            work.close()
            return
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work to its end; an error of this program drains the daemon, where the group would cancel all at once."""
        try:
            await work
        except PartitionEnded:
            pass
        except Exception as error:
            log.error("partition_task_failed", error=place_of(error))  # noqa: TRY400
            self._owner.fail(error)
        except asyncio.CancelledError:
            # Without a drain or a shutdown of the task group, a handler has cancelled the task it was called in,
            # and returned before the cancellation took effect. The partition would be owned, and nothing consumed.
            if self._partition.phase is not Phase.OVER and self._is_group_open():
                key = self._partition.key
                self._owner.fail(ConsumerError(f"{key}: a handler cancelled the task that it was called in"))
            raise

    def _is_group_open(self) -> bool:
        probe = asyncio.sleep(0)
        try:
            self._owner.tasks.create_task(probe)
        except RuntimeError:
            probe.close()
            return False
        return True
