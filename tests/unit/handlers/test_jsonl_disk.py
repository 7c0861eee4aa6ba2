"""The JSON Lines file on a disk that is full or fails."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from consumer.delivery.retry import Attempts
from consumer.errors import SinkError
from consumer.handlers import jsonl
from consumer.handlers.jsonl import JsonLines
from consumer.instructions import Pause
from consumer.settings.sections import RetrySettings
from tests.unit.handlers.files import Disk, Write, read, read_all, some


@pytest.mark.parametrize("room", [0, 1, 300, 700])
async def test_a_full_disk_leaves_no_half_line(path: Path, disk: Disk, room: int) -> None:
    """On a full disk no line is written in part and none is lost; with room again all are written."""
    events = some(6)
    async with JsonLines(path) as write:
        write(events[0])
        await write.flush()
        for event in events[1:5]:
            write(event)
        for _ in range(2):
            disk.room = room
            with pytest.raises(Pause, match="No space left"):
                await write.flush()
            assert read(path) == events[:1]
        disk.room = None
        write(events[5])
        await write.flush()
        assert read(path) == events


async def test_a_full_disk_and_a_full_buffer(path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk and a full buffer the call fails and its event is not kept; a second call writes it once."""
    monkeypatch.setattr(jsonl, "BUFFER_BYTES", 1)
    events = some(2)
    async with JsonLines(path) as write:
        write(events[0])
        disk.room = 5
        with pytest.raises(Pause, match="No space left"):
            write(events[1])
        disk.room = None
        write(events[1])
    assert read(path) == events


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG])
async def test_a_disk_that_takes_nothing_dead_letters_nothing(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A call whose lines the disk refuses, for whatever reason, is repeated without limit and counts no attempt."""
    monkeypatch.setattr(jsonl, "BUFFER_BYTES", 1)
    disk.code = code
    events, attempts = some(2), Attempts(RetrySettings(attempts=1))
    async with JsonLines(path) as write:
        write(events[0])
        disk.room = 0
        for _ in range(3):
            with pytest.raises(SinkError) as refused:
                write(events[1])
            decision = attempts.after(refused.value)
            assert decision.kind == "pause"
            assert decision.wait is not None
            assert str(refused.value) == f"cannot write {path}: {os.strerror(code)}"
        disk.room = None
        write(events[1])
    assert read(path) == events


async def test_a_half_line_that_cannot_be_cut_off_yet(path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half line that could not be cut off after a failed write is cut off before the next one."""
    real = os.ftruncate

    def refuse(_file: int, _size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    events = some(2)
    async with JsonLines(path) as write:
        write(events[0])
        monkeypatch.setattr(os, "ftruncate", refuse)
        for room in (10, None):
            disk.room = room
            with pytest.raises(Pause):
                await write.flush()
        monkeypatch.setattr(os, "ftruncate", real)
        write(events[1])
    assert read(path) == events


async def test_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only a part is followed by one for the rest."""
    real: Write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    async with JsonLines(path) as write:
        for event in some(5):
            write(event)
    assert read(path) == some(5)


async def test_a_failed_sync_stays_failed(path: Path, disk: Disk) -> None:
    """After one failed sync every flush of that file fails, because the kernel may have dropped its data."""
    write = await JsonLines(path).__aenter__()
    write(some(1)[0])
    disk.failing_syncs = 1
    for _ in range(3):
        with pytest.raises(Pause, match="Input/output error"):
            await write.flush()
        write(some(1)[0])
    with pytest.raises(Pause, match="Input/output error"):
        await write.__aexit__(None, None, None)
    async with JsonLines(path):
        assert len(read(path)) == 4


async def test_a_failed_sync_stays_failed_after_rotation(path: Path, disk: Disk) -> None:
    """A failed sync stays failed after a rotation, because lines of the old file may be lost."""
    write = await JsonLines(path, max_bytes=1).__aenter__()
    write(some(1)[0])
    disk.failing_syncs = 1
    with pytest.raises(Pause, match="Input/output error"):
        await write.flush()
    write(some(1)[0])
    for _ in range(2):
        with pytest.raises(Pause, match="Input/output error"):
            await write.flush()
    with pytest.raises(Pause, match="Input/output error"):
        await write.__aexit__(None, None, None)


async def test_a_flush_that_is_cancelled_can_be_done_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is given up cancels its flush while its sync goes on; later flushes succeed."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))  # so that a call waits for those before it
    begun, go_on = asyncio.Event(), threading.Event()
    real = os.fsync

    def slow(file: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        real(file)

    events = some(4)
    async with JsonLines(path, max_bytes=1) as write:
        write(events[0])
        await write.flush()
        write(events[1])
        monkeypatch.setattr(os, "fsync", slow)
        flush = asyncio.create_task(write.flush())
        await asyncio.wait_for(begun.wait(), 10)
        flush.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await flush
        await asyncio.to_thread(int)
        for event in events[2:]:
            write(event)
            await write.flush()
    assert read_all(path) == events
