"""Stacks of threads and tasks: places in code, no values. Read from the supervisor's thread.

Neither the flat loop nor a call notes where it is, which would cost each record time. A frame knows: its code says what
runs, and its variables hold the record.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from consumer.delivery.batch import BatchCalls
from consumer.delivery.calls import Driver, drive
from consumer.delivery.dispatch import Dispatch
from consumer.delivery.worker import Workers
from consumer.observe.waiting import CallUnderWay, Standing

FRAMES = 12
PULL, RUN, AWAIT = Dispatch.pull.__code__, Dispatch.run.__code__, Workers.await_call.__code__
BATCH, AWAIT_BATCH = BatchCalls.begin_call.__code__, BatchCalls.end_call.__code__
RESUME, DRIVE = Driver.resume.__code__, drive.__code__


def all_stacks(watched: asyncio.AbstractEventLoop) -> list[str]:
    """Return the stack of every thread and of every task of an event loop."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = [
        f"thread {names.get(ident, ident)}: {_places(frame)}"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001
    ]
    for task in _tasks(watched):
        frames = task.get_stack(limit=FRAMES)
        places = " < ".join(f"{f.f_code.co_qualname}:{f.f_lineno}" for f in reversed(frames))
        stacks.append(f"task {task.get_name()}: {places}")
    return stacks


def blocking_call(thread: int) -> Standing:
    """Return where the thread of a blocked event loop stands, and the call that keeps it."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001
    frames = [each for each, _ in traceback.walk_stack(frame)] if frame is not None else []
    for index, each in enumerate(frames):
        call = _call_in(each)
        if call is not None:
            return Standing(*call, list(map(_place, frames[:index]))[:FRAMES], _partition_of(each))
    return Standing(places=list(map(_place, frames[:FRAMES])))


def awaited_call(watched: asyncio.AbstractEventLoop, call: CallUnderWay) -> Standing:
    """Return where the task stands that awaits a call."""
    for task in _tasks(watched):
        frames = list(_awaited_frames(task.get_coro()))[::-1]
        for index, each in enumerate(frames):
            if _call_in(each) == (call.route, call.offset):
                found = [frame for frame in frames[:index] if frame.f_code not in (RESUME, DRIVE)]
                return Standing(call.route, call.offset, list(map(_place, found))[:FRAMES], _partition_of(each))
    return Standing(call.route, call.offset, [])


def _call_in(frame: FrameType) -> tuple[str, int | None] | None:
    """Return the route and the offset of the call that a frame makes or awaits; None if it makes none."""
    code = frame.f_code
    if code not in (PULL, RUN, AWAIT, BATCH, AWAIT_BATCH):
        return None
    found = frame.f_locals
    if code is AWAIT:
        ongoing, at = found["ongoing"], found["ongoing"].at
        return ongoing.steps[at].name if at < len(ongoing.steps) else "", ongoing.raw.offset
    if code in (BATCH, AWAIT_BATCH):
        calling = found["self"].calling
        return found["self"].route.name, calling.offset if calling is not None else None
    raw = found.get("raw")
    return found.get("name", ""), raw.offset if raw is not None else None


def _partition_of(frame: FrameType) -> str:
    """Return the topic and partition of the call that a frame makes or awaits."""
    owner = frame.f_locals["self"]
    if frame.f_code is AWAIT:
        return str(owner.partition.key)
    return str(owner.dispatch.key if frame.f_code in (BATCH, AWAIT_BATCH) else owner.key)


def _awaited_frames(awaited: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine and of all that it awaits, the outermost first."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        if frame.f_code is RESUME:  # it drives a generator by itself
            awaited = frame.f_locals.get("generator")
        else:
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _tasks(watched: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    for _ in range(3):
        try:
            return list(asyncio.all_tasks(watched))
        except RuntimeError:  # the set changed while it was read: the loop runs in another thread
            continue
    return []


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _places(frame: FrameType) -> str:
    """Return the places of a thread's stack, innermost first, without reading source files."""
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=FRAMES, lookup_lines=False)
    return " < ".join(f"{each.name} ({each.filename}:{each.lineno})" for each in stack)
