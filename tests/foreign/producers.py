"""The producers: how each is built and run. Building downloads their libraries with the clients of their languages."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from consumer.record import Position

HERE = Path(__file__).parent
BUILD_SECONDS = 600.0
SEND_SECONDS = 120.0


class Producer(NamedTuple):
    """A producer in one language; its folder here has its source and the versions of its libraries."""

    language: str
    build: Sequence[Sequence[str]]
    """Commands that build it, in a copy of its folder."""
    run: Sequence[str]
    """The command that runs it in that folder; it gets the brokers as an argument and orders on stdin."""


PRODUCERS = (
    Producer("go", [["go", "build", "-o", "producer", "."]], ["./producer"]),
    Producer(
        "java",
        [
            ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"],
            ["javac", "-encoding", "UTF-8", "-cp", "lib/*", "Producer.java"],
        ],
        ["java", "-Xmx256m", "-cp", "lib/*:.", "Producer"],
    ),
    Producer("node", [["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]], ["node", "producer.js"]),
)


async def build(producer: Producer, folder: Path) -> None:
    """Build a producer in a folder. Raises RuntimeError with the output of a command that fails."""
    missing = [each[0] for each in producer.build if shutil.which(each[0]) is None]
    if missing:
        raise RuntimeError(f"{producer.language}: install {', '.join(missing)}, or leave it out with --only")
    shutil.copytree(HERE / producer.language, folder)
    for command in producer.build:
        await run(command, folder, b"", BUILD_SECONDS)


async def send(producer: Producer, folder: Path, servers: str, orders: Sequence[object]) -> dict[int, Position]:
    """Run a producer; return the position that it got for each order's number."""
    lines = "".join(json.dumps(each) + "\n" for each in orders)
    out = await run([*producer.run, servers], folder, lines.encode(), SEND_SECONDS)
    found = [json.loads(line) for line in out.splitlines()]
    return {each["number"]: Position(each["topic"], each["partition"], each["offset"]) for each in found}


async def run(command: Sequence[str], folder: Path, given: bytes, seconds: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{(out + err).decode()[-4000:]}")
    return out
