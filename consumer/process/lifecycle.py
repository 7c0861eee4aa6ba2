"""The life of an engine, from its first poll to its end; shared by the daemon and a redrive."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

import structlog

from consumer.delivery.engine import Engine
from consumer.errors import ConsumerError, StuckCallError, place_of
from consumer.kafka.client_source import ClientSource
from consumer.kafka.letter_box import LetterBox

log = structlog.get_logger("consumer.process.lifecycle")

Loop = Callable[[], Awaitable[None]]


class Lifecycle:
    """Runs one engine in a task group and ends it; made before all other parts, used for one run."""

    def __init__(self) -> None:
        self.tasks = asyncio.TaskGroup()
        """Task group of all tasks of the engine; entered by ``run``."""
        self.stopping = asyncio.Event()
        self.draining = False
        self._failure: Exception | None = None

    def stop(self) -> None:
        """Begin to drain; may be called before ``run``, and more than once."""
        self.stopping.set()

    def fail(self, error: Exception) -> None:
        """Drain and end with this error; later errors are ignored."""
        self._failure = self._failure or error
        self.stopping.set()

    async def run(
        self, engine: Engine, source: ClientSource, letters: LetterBox | None, poll: Loop, others: Sequence[Loop]
    ) -> None:
        """Run the loops until ``stop`` or ``fail``, then drain, commit and leave the group.

        A loop that raises, or ends early, ends the run like ``fail``. ``poll`` joins the group; it is ended before the
        source.
        """
        async with self.tasks as tasks:
            polling = tasks.create_task(self._guard(poll))
            loops = [tasks.create_task(self._guard(each)) for each in others]
            await self.stopping.wait()
            self.draining = True
            if source.joined:
                log.info("daemon_draining", seconds=engine.drain_seconds)
            await engine.stop()
            polling.cancel()  # it may be connecting a client, which is then closed
            await asyncio.wait([polling])
            await source.stop()
            if letters is not None:
                await letters.close()
            for loop in loops:
                loop.cancel()
            _exit_if_stuck(engine)

    def raise_failure(self) -> None:
        """Raise the error passed to ``fail``; do nothing if the run ended by ``stop``."""
        if self._failure is not None:
            raise self._failure

    async def _guard(self, loop: Loop) -> None:
        """Run one loop; an exception, and any other end before the stop, is a failure.

        The task group would cancel everything at once for an exception, and would ignore a CancelledError that escaped
        from a library: the daemon would go on without the loop.
        """
        try:
            await loop()
        except Exception as error:
            log.debug("loop_failed", error=place_of(error))
            self.fail(error)
        except asyncio.CancelledError:
            self._fail_if_running(loop, "a library or a handler cancelled it")
            raise
        else:
            self._fail_if_running(loop, "it returned")

    def _fail_if_running(self, loop: Loop, why: str) -> None:
        if not self.stopping.is_set():
            name = getattr(loop, "__qualname__", repr(loop))
            self.fail(ConsumerError(f"{name}, which must run until the stop, has ended: {why}; start again, report it"))


def is_cancelled() -> bool:
    """Whether the current task was cancelled. If not, a CancelledError in it was raised by a library."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _exit_if_stuck(engine: Engine) -> None:
    """End the process at once if a call does not end, though cancelled: the task group would wait for it for ever."""
    if engine.stuck_calls:
        log.error("exit_forced", stuck_calls=engine.stuck_calls, exit_code=StuckCallError.exit_code)
        os._exit(StuckCallError.exit_code)
