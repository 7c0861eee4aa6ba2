"""Compression of full files: none is lost, whenever it ends."""

from __future__ import annotations

import asyncio
import gzip
import threading
from pathlib import Path

import pytest

from consumer.handlers import full_files
from consumer.handlers.jsonl import JsonLines
from schemas.session import Session
from schemas.wire import session_reader
from tests.unit.handlers.files import read, some


def names(path: Path) -> list[str]:
    """Return the names of all files but the one that is written."""
    return sorted(each.name for each in path.parent.iterdir() if each != path)


def unpacked(path: Path) -> list[Session]:
    files = [path.with_name(name) for name in names(path)]
    lines = [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    return [*map(session_reader(), lines), *read(path)]


async def all_packed(path: Path, count: int) -> None:
    async with asyncio.timeout(10):
        while not (len(names(path)) == count and all(name.endswith(".jsonl.gz") for name in names(path))):
            await asyncio.sleep(0.01)


async def leave_full_files(path: Path, count: int) -> list[Session]:
    """Leave full files that are not compressed, and return all events."""
    events = some(count + 1)
    async with JsonLines(path, max_bytes=1) as write:
        for event in events:
            write(event)
            await write.flush()
    assert len(names(path)) == count
    return events


async def test_full_files_are_compressed(path: Path) -> None:
    """Each full file becomes a gzip file of the same lines, and the file that is written stays plain."""
    events = some(4)
    async with JsonLines(path, max_bytes=1, compress=True) as write:
        for event in events:
            write(event)
            await write.flush()
        await all_packed(path, 3)
        assert unpacked(path) == events


async def test_what_a_kill_left_is_compressed_at_the_next_start(path: Path) -> None:
    """Full files, halves of compressed files, and files whose compression had just ended are compressed at start."""
    events = await leave_full_files(path, 3)
    first, second, _ = (path.with_name(name) for name in names(path))
    first.with_name(f"{first.name}.gz.part").write_bytes(b"half")
    second.with_name(f"{second.name}.gz").write_bytes(gzip.compress(second.read_bytes()))
    async with JsonLines(path, max_bytes=10**9, compress=True):
        await all_packed(path, 3)
        assert unpacked(path) == events


async def test_other_files_stay_as_they_are(path: Path) -> None:
    """Files of other handlers and people in the same folder are not compressed."""
    await leave_full_files(path, 1)
    (full,) = names(path)
    others = ["events-old.jsonl", f"more-{full}", f"{full}.bak", full.replace("events", "event")]
    for name in others:
        path.with_name(name).touch()
    async with JsonLines(path, max_bytes=10**9, compress=True):
        async with asyncio.timeout(10):
            while full in names(path):
                await asyncio.sleep(0.01)
    assert names(path) == sorted([*others, f"{full}.gz"])


async def test_a_stop_does_not_wait_for_a_compression(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compression that is under way at a stop is given up, and its file stays as it was."""
    events = await leave_full_files(path, 1)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(gzip.GzipFile):
        def write(self, data: object) -> int:
            begun.set()
            go_on.wait(10)
            return super().write(data)  # type: ignore[arg-type]

    monkeypatch.setattr(full_files, "CHUNK_BYTES", 10)
    monkeypatch.setattr(gzip, "GzipFile", Slow)
    async with JsonLines(path, max_bytes=10**9, compress=True) as write:
        assert await asyncio.to_thread(begun.wait, 10)
        assert write._compressor is not None
        write._compressor._stopped.set()
        go_on.set()
    (full,) = names(path)
    assert read(path.with_name(full)) == events[:1]


async def test_a_full_disk_keeps_the_plain_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compression that fails leaves the plain file and no half of a compressed one; the others go on."""
    events = await leave_full_files(path, 2)
    failing = names(path)[0]
    real = gzip.GzipFile

    def make(name: str, *arguments: object) -> gzip.GzipFile:
        if name == failing:
            raise OSError(28, "No space left on device")
        return real(name, *arguments)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(gzip, "GzipFile", make)
    async with JsonLines(path, max_bytes=10**9, compress=True):
        async with asyncio.timeout(10):
            while not names(path)[1].endswith(".gz"):
                await asyncio.sleep(0.01)
    assert names(path)[0] == failing
    assert read(path.with_name(failing)) == events[:1]
