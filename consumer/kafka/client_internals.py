"""What aiokafka's consumer keeps to itself and a daemon must know or change: its tasks, its heartbeats, its commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiokafka.errors import CommitFailedError

from consumer.kafka.client import ClientError, described

STOP_SECONDS = 3.0
CLOSE_SECONDS = 1.0


def note_heartbeats(consumer: Any, heard: Callable[[], None]) -> None:
    """Have ``heard`` told whenever the group has heard of this member."""
    coordinator = consumer._coordinator
    beat = coordinator._do_heartbeat

    async def noted() -> bool:
        taken = bool(await beat())
        if taken:
            heard()
        return taken

    coordinator._do_heartbeat = noted


def fence_commits(consumer: Any) -> None:
    """Refuse a commit that would be sent again as somebody else.

    aiokafka looks up who we are at each attempt. A commit waits for the coordinator, the group throws us out, and a
    heartbeat hears of it: the next attempt would go out as nobody's, which a group without members takes, or under the
    next generation, for partitions that are another's by then.
    """
    coordinator = consumer._coordinator
    send = coordinator._do_commit_offsets

    async def fenced(assignment: Any, offsets: Any) -> None:
        if coordinator.generation < 0 or not assignment.active:
            raise CommitFailedError("the group has moved on since the commit began")
        await send(assignment, offsets)

    coordinator._do_commit_offsets = fenced


def ended_task(consumer: Any) -> str | None:
    """Say which of the client's background tasks has ended: without it, it would look alive and fetch nothing.

    A heartbeat that failed in an unknown way is never begun again, so nobody would hear of us.
    """
    for name, task in _tasks_of(consumer).items():
        if task is None or not task.done() or task.cancelled():
            continue
        error = task.exception()
        if error is not None or name != "heartbeat":
            why = described(error) if error is not None else "it returned"
            return f"the client's {name} task has ended ({why})"
    return None


async def stop_consumer(consumer: Any) -> None:
    """Leave the group and close; bounded, and nothing it raises matters any more.

    aiokafka's own stop lets a CancelledError escape when brokers are away, and waits for a request that is not
    answered: what it did not come to is left running, and its client open.
    """
    try:
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(STOP_SECONDS):
                try:
                    await consumer.stop()
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise
    finally:  # when we are cancelled as well
        await _end_tasks(consumer)  # first: they would connect again
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await consumer._client.close()


def _tasks_of(consumer: Any) -> dict[str, asyncio.Task[Any] | None]:
    """Return the background tasks that a client lives by."""
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    return {
        "fetcher": fetcher and fetcher._fetch_task,
        "group": coordinator and coordinator._coordination_task,
        "heartbeat": coordinator and coordinator._heartbeat_task,
        "metadata": consumer._client._sync_task,
    }


async def _end_tasks(consumer: Any) -> None:
    """End what a stop that was given up has left running."""
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    tasks = {*_tasks_of(consumer).values(), *(fetcher._pending_tasks if fetcher else ())}
    tasks.add(coordinator and coordinator._commit_refresh_task)
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)
        for task in left:
            if task.done() and not task.cancelled():
                task.exception()  # looked at: nobody else will
