"""Private parts of aiokafka's consumer that a daemon must watch or change: tasks, heartbeats, commits, stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from aiokafka.errors import CommitFailedError, UnknownMemberIdError
from aiokafka.protocol.commit import OffsetCommitRequest

from consumer.kafka.broker_errors import FencedInstanceIdError
from consumer.kafka.failures import ClientError, described

STOP_SECONDS = 3.0
CLOSE_SECONDS = 1.0
IDLE_FETCH_MS = 1000
UNKNOWN_MEMBER, FENCED = UnknownMemberIdError.errno, FencedInstanceIdError.errno


def note_heartbeats(consumer: Any, heard: Callable[[float], None]) -> None:
    """Call ``heard`` after each heartbeat that the group has accepted, with the monotonic time at which it was sent.

    The session runs from when the broker has the heartbeat; its answer may come much later.
    """
    coordinator = consumer._coordinator
    beat = coordinator._do_heartbeat

    async def noted() -> bool:
        sent = time.monotonic()
        taken = bool(await beat())
        if taken:
            heard(sent)
        return taken

    coordinator._do_heartbeat = noted


def fence_commits(consumer: Any) -> None:
    """Refuse a commit whose retry would be sent under another generation.

    aiokafka looks up the member's generation at each attempt. While a commit waits for the coordinator, the group may
    expel this member, which a heartbeat then learns. The next attempt would be sent without a generation, which a group
    without members accepts, or under the next generation, for partitions that others own by then.
    """
    coordinator = consumer._coordinator
    send = coordinator._do_commit_offsets

    async def fenced(assignment: Any, offsets: Any) -> None:
        if coordinator.generation < 0 or not assignment.active:
            raise CommitFailedError("the group has moved on since the commit began")
        await send(assignment, offsets)

    coordinator._do_commit_offsets = fenced


def watch_instance(consumer: Any, is_member: Callable[[], bool], taken_over: Callable[[], None]) -> None:
    """Call ``taken_over`` once another member has joined with this one's ``group_instance_id``, and join no more.

    aiokafka would join again, which fences the other member, which would join again, for ever. So it never acts on such
    an answer. Brokers know no member whose session has expired either; ``is_member`` says whether it cannot have.
    """
    coordinator = consumer._coordinator
    send = coordinator._send_req

    async def watched(request: Any) -> Any:
        answer = await send(request)
        codes = _codes_of(answer)
        if FENCED not in codes and not (UNKNOWN_MEMBER in codes and is_member()):
            return answer
        coordinator.reset_generation = coordinator.request_rejoin = lambda: None
        taken_over()
        if isinstance(request, OffsetCommitRequest):
            return answer  # it fails the commit, for which the committer waits
        return await asyncio.Event().wait()  # until the client is stopped, which cancels it

    coordinator._send_req = watched


def _codes_of(answer: Any) -> set[int]:
    """Return the error codes of an answer; that to a commit has one for each partition."""
    if hasattr(answer, "error_code"):
        return {answer.error_code}
    rows = [row for _topic, rows in getattr(answer, "topics", ()) for row in rows]
    return {row[1] for row in rows if len(row) == 2}


def wait_longer_when_idle(consumer: Any, has_records: Callable[[], bool]) -> None:
    """Have fetches wait ``IDLE_FETCH_MS`` at the brokers while this client has no records to hand out.

    A fetch of 256 partitions takes milliseconds of CPU, and ten of them a second were most of what an idle daemon cost.
    A broker answers at once when it has a record. But a partition that is left out of a fetch, because its records are
    still to be handed out or its position is not known, waits for the end of that fetch; then it must end soon.
    """
    fetcher = consumer._fetcher
    usual, choose = fetcher._fetch_max_wait_ms, fetcher._get_actions_per_node

    def chosen(assignment: Any) -> Any:
        idle = not (fetcher._records or has_records()) and all(
            state.has_valid_position and not state.paused for state in map(assignment.state_value, assignment.tps)
        )
        fetcher._fetch_max_wait_ms = max(usual, IDLE_FETCH_MS) if idle else usual
        return choose(assignment)

    fetcher._get_actions_per_node = chosen


def ended_task(consumer: Any) -> str | None:
    """Return which of the client's background tasks has ended, or None; without it a client fetches nothing.

    aiokafka never restarts a heartbeat task that failed with an unknown error, so the group would lose this member.
    """
    return next(filter(None, (has_ended(name, task) for name, task in _tasks_of(consumer).items())), None)


def has_ended(name: str, task: asyncio.Task[Any] | None) -> str | None:
    """Return that a task has ended, and why; None while it runs."""
    if task is None or not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is None and name == "heartbeat":
        return None
    return f"the client's {name} task has ended ({described(error) if error is not None else 'it returned'})"


async def stop_consumer(consumer: Any) -> None:
    """Leave the group and close the client, within a time limit; errors are ignored.

    aiokafka's own stop raises CancelledError when brokers are unreachable, and waits for a request that is not
    answered. It then leaves tasks running and its client open, so this ends them.
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
    finally:  # also when this is cancelled
        await _end_tasks(consumer)  # before the client closes, as the tasks would connect again
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await consumer._client.close()


def _tasks_of(consumer: Any) -> dict[str, asyncio.Task[Any] | None]:
    """Return the background tasks that a client needs, by name."""
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    return {
        "fetcher": fetcher and fetcher._fetch_task,
        "group": getattr(coordinator, "_coordination_task", None),
        "heartbeat": getattr(coordinator, "_heartbeat_task", None),
        "metadata": consumer._client._sync_task,
    }


async def _end_tasks(consumer: Any) -> None:
    """End the tasks that an incomplete stop has left running."""
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    tasks = {*_tasks_of(consumer).values(), *(fetcher._pending_tasks if fetcher else ())}
    tasks |= {getattr(coordinator, name, None) for name in ("_commit_refresh_task", "_reset_committed_task")}
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_SECONDS)
        for task in left:
            if task.done() and not task.cancelled():
                task.exception()  # retrieved, or asyncio would log it
