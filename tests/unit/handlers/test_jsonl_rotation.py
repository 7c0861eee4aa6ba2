"""Rotation of the JSON Lines file: all files together hold each line once."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.handlers import jsonl
from consumer.handlers.jsonl import JsonLines
from tests.unit.handlers.files import Disk, read, read_all, some


@given(st.integers(0, 2000), st.lists(st.booleans(), max_size=30))
async def test_rotation_keeps_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, limit: int, flushes: list[bool]
) -> None:
    """With any size limit and any flushes, all files together hold each line once, in order."""
    path = tmp_path_factory.mktemp("rotation") / "events.jsonl"
    events = some(len(flushes))
    async with JsonLines(path, max_bytes=limit) as write:
        for event, flush in zip(events, flushes, strict=True):
            write(event)
            if flush:
                await write.flush()
    assert read_all(path) == events
    if limit == 0:
        assert list(path.parent.iterdir()) == [path]


async def test_a_file_past_its_limit_is_renamed(path: Path, disk: Disk) -> None:
    """A file past ``max_bytes`` is synced, and renamed with the time in its name."""
    async with JsonLines(path, max_bytes=10) as write:
        for event in some(3):
            write(event)
            await write.flush()
    files = sorted(path.parent.iterdir())
    assert [len(read(file)) for file in files] == [1, 1, 1]
    assert all(file.match("events-????????T??????.??????Z.jsonl") for file in files if file != path)
    assert set(disk.synced) == {file.stat().st_ino for file in [*files, path.parent]}


async def test_no_two_files_get_one_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back, or stands still, never makes a file replace an earlier one."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stopped:
            return cls(2026, 8, 21, tzinfo=UTC)

    monkeypatch.setattr(jsonl, "datetime", Stopped)
    events = some(4)
    async with JsonLines(path, max_bytes=1) as write:
        for event in events:
            write(event)
            await write.flush()
    assert sorted(read_all(path), key=lambda event: event.timestamp) == events


async def test_a_rotation_that_fails_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no new file can be opened the old one stays and its lines wait; a later rotation succeeds."""
    events = some(3)
    real = os.open

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with JsonLines(path, max_bytes=1) as write:
        write(events[0])
        await write.flush()
        write(events[1])
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="No space left"):
            await write.flush()
        monkeypatch.setattr(os, "open", real)
        assert list(path.parent.iterdir()) == [path]
        assert read(path) == events[:1]
        write(events[2])
    assert read_all(path) == events
