"""All workers: they are started, started again when they end, and drained together."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from consumer.errors import (
    KafkaUnreachableError,
    PartitionHaltedError,
    SettingsError,
    StalledError,
    StuckCallError,
    WorkersEndedError,
)
from consumer.http.workers.facts import WorkerFacts
from consumer.process.notify import DRAINING, Notify
from consumer.process.workers.restarts import Pace, Restarts
from consumer.process.workers.worker import Worker

log = structlog.get_logger("consumer.process.workers.workers")

ENDS_ALL = {
    SettingsError.exit_code: "its settings or handlers are wrong, which a restart does not change",
    PartitionHaltedError.exit_code: 'a partition halted, and delivery.on_halt is "exit"',
}
"""Exit codes of a worker that end all workers, and why."""


class Rules(NamedTuple):
    """How long a stop may take, and when restarts are given up; see ``Restarts``."""

    stop_seconds: float
    restarts: int
    window_seconds: float
    pace: Pace = Pace()


class Workers:
    """Runs the workers until ``stop``, or until the end of one ends all; implements ``Supervised``."""

    def __init__(self, workers: Sequence[Worker], rules: Rules, notify: Notify) -> None:
        self._workers = workers
        self._rules = rules
        self._notify = notify
        self._stopping = asyncio.Event()
        self._failure: WorkersEndedError | None = None
        self._ready = False

    @property
    def stopping(self) -> bool:
        """Whether the stop has begun."""
        return self._stopping.is_set()

    @property
    def facts(self) -> Sequence[WorkerFacts]:
        """The workers, by number."""
        return [each.facts for each in self._workers]

    def stop(self) -> None:
        """Begin to drain all; may be called before ``run``, and more than once."""
        self._stopping.set()

    def kill(self) -> None:
        """End all processes at once."""
        for each in self._workers:
            each.kill()

    def send(self, number: int) -> None:
        """Pass on a signal that ends nothing."""
        for each in self._workers:
            each.send(number)

    async def run(self) -> None:
        """Run all until ``stop``. Raises WorkersEndedError when a worker's end ends all, or a stop was not clean."""
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(self._keep(each)) for each in self._workers]
            looking = tasks.create_task(self._look_forever())
            await self._stopping.wait()
            log.info("workers_draining", seconds=self._rules.stop_seconds)
            self._report()
            for each in self._workers:
                each.drain()
            _, left = await asyncio.wait(keeping, timeout=self._rules.stop_seconds)
            if left:
                self._fail(StuckCallError.exit_code, f"the stop took longer than {self._rules.stop_seconds:g} s")
                self.kill()
                await asyncio.wait(left)
            looking.cancel()
        if self._failure is not None:
            raise self._failure
        log.info("workers_stopped")

    async def _keep(self, worker: Worker) -> None:
        """Run one worker again and again until the stop."""
        restarts = Restarts(self._rules.pace, self._rules.restarts, self._rules.window_seconds)
        while not self.stopping:
            began = time.monotonic()
            code = await worker.run()
            ran = time.monotonic() - began
            if self._stopping.is_set():
                if code:
                    self._fail(code, f"worker {worker.number} exited with {code} at the stop")
                return
            seconds = self._until_restart(worker, restarts, code, ran)
            log.warning("worker_ended", worker=worker.number, exit_code=code, seconds=round(ran, 1), restart_in=seconds)
            if seconds is None:
                return
            worker.wait_until(time.time() + seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()

    def _until_restart(self, worker: Worker, restarts: Restarts, code: int, ran: float) -> float | None:
        """Return the seconds until a worker that ended is started again; None if its end ends all."""
        why = ENDS_ALL.get(code)
        unreachable = code == KafkaUnreachableError.exit_code
        if unreachable and not any(each.joined for each in self._workers):
            why = "no worker has reached Kafka within kafka.start_timeout_seconds"
        if why is not None:
            self._fail(code, f"worker {worker.number} exited with {code}: {why}")
            return None
        # An outage of the brokers ends nothing, so the time that such a start took does not count.
        seconds = restarts.after(math.inf if unreachable else ran, time.monotonic())
        if seconds is None:
            self._fail(
                StalledError.exit_code,
                f"worker {worker.number} exited with {code}, and more than {self._rules.restarts} times within"
                f" {self._rules.window_seconds:g} s soon after its start (watchdog.rebuilds, watchdog.window_seconds)",
            )
        return seconds

    def _fail(self, code: int, why: str) -> None:
        """Drain all and end with this code; later failures are ignored."""
        self._failure = self._failure or WorkersEndedError(code, f"{why}; all workers were stopped")
        self.stop()

    async def _look_forever(self) -> None:
        while True:
            for each in self._workers:
                each.look()
            self._report()
            await asyncio.sleep(self._rules.pace.look)

    def _report(self) -> None:
        """Report to the service manager: once that all are ready, how many run, and that the parent lives.

        A worker that imports has no watchdog yet, so no time is asked for it.
        """
        serving = sum(each.serving for each in self._workers)
        if serving == len(self._workers) and not self._ready:
            self._ready = True
            self._notify.ready()
        state = DRAINING if self.stopping else f"{serving} of {len(self._workers)} workers run"
        self._notify.alive(state, watched=all(each.watched for each in self._workers))
