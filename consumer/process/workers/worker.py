"""One worker as its parent process sees it: its process, what it reports, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Sequence

import structlog

from consumer.http.workers.facts import WorkerFacts

log = structlog.get_logger("consumer.process.workers.worker")

SILENT_LOOKS = 30
"""Looks without a report after which a worker is killed: its supervisor's thread stands still, which nothing else ends.
Looks are counted, not seconds, because the parent may have been suspended itself."""
NOT_STARTED = 1
"""Exit code of a process that could not be started."""


class Worker:
    """The processes of one number, one after the other; owned by Workers, as long-lived as they are."""

    def __init__(self, number: int, command: Sequence[str], port: int) -> None:
        """``command`` starts a worker when ``--worker NUMBER:DESCRIPTOR`` is added; ``port`` is 0 for a free one."""
        self.number = number
        self.joined = False
        """Whether a process of this number was ever a member of the group."""
        self.serving = False
        self._command = command
        self._given_port = self._port = port
        self._process: asyncio.subprocess.Process | None = None
        self._line: asyncio.StreamWriter | None = None
        self._draining = False
        self._silent: int | None = None
        """Looks since the last report; None before the first."""
        self._state = "starting"
        self._since = time.time()
        self._starts = 0
        self._exit_code: int | None = None
        self._starts_at: float | None = None

    @property
    def facts(self) -> WorkerFacts:
        """What is known of it now."""
        return WorkerFacts(
            number=self.number,
            pid=self._process.pid if self._process is not None else None,
            port=self._port or None,
            state=self._state,
            serving=self.serving,
            since=self._since,
            restarts=max(0, self._starts - 1),
            exit_code=self._exit_code,
            starts_at=self._starts_at,
        )

    @property
    def watched(self) -> bool:
        """Whether its process has reported, which its watchdog does from then on; True while it has none."""
        return self._silent is not None or self._state == "ended"

    async def run(self) -> int:
        """Start a process and wait for its end; return its exit code, which is 128 + signal for one that was killed.

        A process that is left by an exception is killed.
        """
        self._starts += 1
        self._become("starting")
        try:
            code = await self._run()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread is left that waits for its end
            log.error("worker_not_started", worker=self.number, why=getattr(error, "strerror", None) or str(error))  # noqa: TRY400
            code = NOT_STARTED
        self._exit_code = code if code >= 0 else 128 - code
        self._become("ended")
        return self._exit_code

    async def _run(self) -> int:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            descriptor = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                *self._command,
                f"--worker={self.number}:{descriptor}",
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(descriptor,),
                start_new_session=True,  # Ctrl-C in a terminal reaches the parent alone, which then stops the workers
            )
            theirs.close()
            self._process = process
            try:
                async with asyncio.TaskGroup() as tasks:
                    reader, self._line = await asyncio.open_connection(sock=ours)
                    hearing = tasks.create_task(self._hear(reader))
                    if self._draining:
                        self.drain()
                    await process.wait()
                    hearing.cancel()  # a child of the worker may keep the connection open
            finally:
                await self._end(process)
        return process.returncode if process.returncode is not None else NOT_STARTED

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if self._line is not None:
            self._line.close()
        self._process, self._line, self._silent, self.serving = None, None, None, False
        self._port = self._given_port  # a free one may be another program's now

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """Take the worker's reports. What is no report is ignored: it was dropped in part."""
        with contextlib.suppress(OSError, ValueError):  # a broken connection, and a line without end: it is silent then
            while line := await reader.readline():
                self._take(*line.decode("ascii", "replace").strip().partition(" "))

    def _take(self, word: str, _: str, value: str) -> None:
        if word == "ready" and value.isdecimal():
            self._port, self.serving = int(value), True
            log.info("worker_started", worker=self.number, pid=self.facts.pid, port=self._port)
        elif word == "alive":
            self._silent, self._state = 0, value
            self.joined = self.joined or value == "running"

    def _become(self, state: str) -> None:
        self._state, self._since, self._starts_at = state, time.time(), None

    def wait_until(self, at: float) -> None:
        """Note when it is started again."""
        self._starts_at = at

    def drain(self) -> None:
        """Stop it as SIGTERM does; one that was stopped already is left to its drain."""
        self._draining = True
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.write_eof()

    def kill(self) -> None:
        """End its process at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def send(self, number: int) -> None:
        """Pass on a signal that ends nothing; a process that has not reported yet would not survive it."""
        if self._process is not None and self._silent is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def look(self) -> None:
        """Kill a process that has stopped to report; called at intervals."""
        if self._silent is None or self._draining:
            return
        self._silent += 1
        if self._silent > SILENT_LOOKS:
            log.error("worker_silent", worker=self.number, pid=self.facts.pid)
            self.kill()
