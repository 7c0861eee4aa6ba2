"""Runs contestants, one process each, and verifies their results at the brokers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.contestants import Contestant
from bench.data import DataSet, Topics
from bench.environment import ROOT, PeerUnavailableError, python_of
from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.probe import group_offsets

RUN_SECONDS = 120.0
COMMITTED_SECONDS = 10.0
SCRAPE_SECONDS = 1.0
LINE_BYTES = 64_000_000

Lines = dict[str, list[dict[str, Any]]]
"""The lines of all rounds, by name of the contestant."""


class VoidRunError(Exception):
    """A contestant did not handle and commit exactly what was produced."""


class ContestantError(Exception):
    """A contestant's process failed; the text ends with its last output."""


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Driver:
    """One Kafka and all processes that use it; made by ``open_driver``."""

    def __init__(self, servers: str) -> None:
        self.topics = Topics(servers, progress)
        self.servers = servers
        self._numbers = itertools.count(1)

    def fresh(self, name: str) -> str:
        """Return an unused name for a group or a topic."""
        return f"{name}-{next(self._numbers)}"

    async def run(self, contestant: Contestant, data: DataSet, *, scrape: bool = False) -> dict[str, Any]:
        """Run one contestant on one data set and print its line. Raises VoidRunError or ContestantError."""
        topic = await self.topics.filled(data)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            async with self.started(contestant, topic, data.events, folder=folder) as process:
                result = await _result(process, scrape=scrape)
            lines = _lines_in(Path(folder))
        if lines != (data.lines() if contestant.writes else {}):
            raise VoidRunError(f"{contestant.name}: {data.lines()} lines expected, {lines} written")
        committed = await self._committed(topic, process.group, data.events) if contestant.commits else None
        return checked(result, contestant.name, data, committed)

    @asynccontextmanager
    async def started(self, contestant: Contestant, topic: str, events: int, **more) -> AsyncIterator[Process]:
        """Start a contestant in a new group, or in the one named in ``more``, for the block."""
        job = {
            "servers": self.servers,
            "topic": topic,
            "group": self.fresh(contestant.name),
            "events": events,
            "mode": contestant.mode,
            **more,
        }
        async with _started(await python_of(contestant.peer, progress), contestant.module, job) as process:
            yield process

    async def committed(self, topic: str, group: str) -> int:
        """Return the number of records of a topic that a group has committed, by the brokers."""
        offsets = await group_offsets(self.topics.kafka(topic, group))
        return sum(committed or 0 for committed, _end in offsets.values())

    async def _committed(self, topic: str, group: str, events: int) -> int:
        """Repeat the request for a moment: the last commit of some peers arrives after their process has ended."""
        committed = await self.committed(topic, group)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMITTED_SECONDS):
                while committed != events:
                    await asyncio.sleep(0.5)
                    committed = await self.committed(topic, group)
        return committed


class Process:
    """A running contestant and the lines of its output."""

    def __init__(self, process: asyncio.subprocess.Process, group: str, errors) -> None:
        self.group = group
        self._process = process
        self._errors = errors

    async def said(self, *names: str) -> dict[str, Any]:
        """Return the next line that has one of these fields. Raises ContestantError when the process ends first."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and any(name in found for name in names):
                    return found
        await self._process.wait()
        raise ContestantError(f"ended with {self._process.returncode}; it said last: {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-1500:]


@asynccontextmanager
async def _started(python, module: str, job: dict[str, Any]) -> AsyncIterator[Process]:
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-m",
            f"bench.loops.{module}",
            json.dumps(job),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES,
        )
        try:
            async with asyncio.timeout(RUN_SECONDS):
                yield Process(process, job["group"], errors)
                await process.wait()
        except TimeoutError:
            raise ContestantError(f"{module} {job['mode']}: not done within {RUN_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _lines_in(folder: Path) -> dict[str, int]:
    return {each.name: each.read_bytes().count(b"\n") for each in folder.iterdir()}


async def _result(process: Process, *, scrape: bool) -> dict[str, Any]:
    if not scrape:
        return await process.said("handled")
    ready = await process.said("port")
    scraping = asyncio.create_task(_scrape_forever(ready["port"]))
    try:
        result = await process.said("handled")
    finally:
        scraping.cancel()
        await asyncio.wait([scraping])
    if scraping.cancelled() or scraping.exception() is None:
        return result
    raise ContestantError(f"scraping failed: {scraping.exception()!r}")


async def _scrape_forever(port: int) -> None:
    """Scrape /metrics once a second, as Prometheus does; from the driver, so that only the answers are measured."""
    while True:
        with contextlib.suppress(ConnectionError):  # at the end it goes away
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            await reader.read(-1)
            writer.close()
        await asyncio.sleep(SCRAPE_SECONDS)


def checked(result: dict[str, Any], name: str, data: DataSet, committed: int | None) -> dict[str, Any]:
    """Print and return the line of a valid run. Raises VoidRunError if it lost or repeated records."""
    handled = result["handled"]
    line = {
        "contestant": name,
        **data._asdict(),
        "handled": handled,
        "committed": committed,
        "wall": round(result["wall"], 4),
        "per_second": round(handled / result["wall"]),
        "cpu_us": round(result["cpu"] / handled * 1e6, 4),
        "rss_mb": round(result["rss_mb"], 1),
    }
    progress(json.dumps(line))
    if handled != data.events or committed not in (None, data.events):
        raise VoidRunError(f"{name}: {data.events} produced, {handled} handled, {committed} committed")
    return line


async def alternate(driver: Driver, contestants: Sequence[Contestant], data: DataSet, rounds: int) -> Lines:
    """Run all contestants in rounds, every second round in reverse; return the lines of each, by name.

    A peer that cannot be run, or a mode that no claim rests on, is left out after its first failure, with the
    reason in place of its lines' numbers.
    """
    lines: Lines = {each.name: [] for each in contestants}
    failed: set[str] = set()
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for each in contestants if number % 2 == 0 else reversed(contestants):
            if each.name in failed:
                continue
            given = data._replace(events=max(1000, int(data.events * each.share)), spelling=each.spelling)
            try:
                lines[each.name].append(await driver.run(each, given))
            except (PeerUnavailableError, ContestantError) as error:
                if not each.may_fail:
                    raise
                progress(f"{each.name}: {error}")
                lines[each.name] = [{"contestant": each.name, "failed": _reason(error)}]
                failed.add(each.name)
    return lines


def _reason(error: Exception) -> str:
    """Return the most useful line of an error output: the last that names an exception, else the last."""
    lines = [line.strip(" |") for line in str(error).splitlines() if line.strip(" |+-")]
    naming = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (naming or lines or ["no reason given"])[-1][:160]


@asynccontextmanager
async def open_driver(**properties: str) -> AsyncIterator[Driver]:
    """Start a local Kafka for the block; ``properties`` have ``_`` for ``.``."""
    lines = {name.replace("_", "."): value for name, value in properties.items()}
    async with LocalKafka(report=progress, properties=lines) as kafka:
        yield Driver(kafka.bootstrap_servers)
