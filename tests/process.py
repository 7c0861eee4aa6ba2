"""A real ``session-consumer`` process seen from outside: its log, its HTTP port, its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp

EXIT_SECONDS = 40.0


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process if it still runs, and wait for its end."""
    if process.returncode is None:
        process.kill()
    await process.wait()


class Running:
    """A process whose output is read while it runs; it is killed, if it still runs, at the end of the block."""

    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._reader is not None
        await end(self._process)
        await self._reader


class RunningConsumer(Running):
    """A daemon that is started when entered, and ended when left."""

    def __init__(self, settings: Path, overrides: Sequence[str], environment: Mapping[str, str] = {}) -> None:
        self.module = "consumer"
        self.environment = environment
        self.arguments = ["--debug", "run", "-c", str(settings)]
        for override in overrides:
            self.arguments += ["--set", override]
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            self.module,
            *self.arguments,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines.append(line.decode().rstrip())
            self._changed.set()
        self._changed.set()

    async def said(self, text: str, seconds: float = 30.0) -> str:
        """Wait until a line of the log holds ``text`` and return that line."""
        async with asyncio.timeout(seconds):
            while True:
                self._changed.clear()
                for line in self.lines:
                    if text in line:
                        return line
                assert self._reader is not None
                assert not self._reader.done(), f"ended without saying {text!r}: {self.lines}"
                await self._changed.wait()

    async def url(self) -> str:
        return str(json.loads(await self.said('"http"'))["http"])

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.get(await self.url() + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def metric(self, name: str, **labels: str) -> float:
        """Read one sample that has at least the given labels; NaN when there is none."""
        _, text = await self.get("/metrics")
        for line in text.splitlines():
            found = re.fullmatch(r"session_consumer_(\w+)(?:\{(.*)\})? (\S+)", line)
            if (
                found
                and found[1] == name
                and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")).items()
            ):
                return float(found[3])
        return float("nan")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        ended = self._process.returncode
        assert ended is None, "\n".join([f"ended by itself with {ended}:", *self.lines[-60:]])
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(EXIT_SECONDS):
            return await self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended; its children may still have its stderr."""
        assert self._process is not None
        return self._process.returncode is not None

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.exit_code()

    @property
    def errors(self) -> list[str]:
        return [line for line in self.lines if line.startswith("session-consumer:")]


@asynccontextmanager
async def started(
    *arguments: str, reads: int = asyncio.subprocess.DEVNULL, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start one command with its output piped; kill it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "consumer",
        *arguments,
        stdin=reads,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        await end(process)


async def command(*arguments: str, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Run one command to its end; return exit code, stdout and stderr."""
    async with started(*arguments, reads=asyncio.subprocess.PIPE, **environment) as process:
        async with asyncio.timeout(EXIT_SECONDS):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()
