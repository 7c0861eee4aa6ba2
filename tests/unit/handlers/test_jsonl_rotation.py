"""Rotation of the JSON Lines file: all files together hold each line once."""

from __future__ import annotations

import asyncio
import errno
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.handlers import full_files, jsonl, line_file
from consumer.handlers.jsonl import JsonLines
from consumer.instructions import Pause
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

    monkeypatch.setattr(full_files, "datetime", Stopped)
    events = some(4)
    async with JsonLines(path, max_bytes=1) as write:
        for event in events:
            write(event)
            await write.flush()
    assert sorted(read_all(path), key=lambda event: event.timestamp) == events


async def test_a_rotation_that_fails_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no new file can be begun, the lines wait for it; the full file is renamed already."""
    events = some(3)
    real = os.open

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with JsonLines(path, max_bytes=1) as write:
        write(events[0])
        await write.flush()
        write(events[1])
        monkeypatch.setattr(os, "open", refuse)
        for _ in range(2):
            with pytest.raises(Pause, match="No space left"):
                await write.flush()
        monkeypatch.setattr(os, "open", real)
        (full,) = path.parent.iterdir()
        assert read(full) == events[:1]
        write(events[2])
    assert read_all(path) == events


@pytest.fixture
def link(path: Path) -> Path:
    """Return a link to the path, from another folder."""
    link = path.parent.parent / "app" / "link.jsonl"
    for folder in (link.parent, path.parent):
        folder.mkdir()
    link.symlink_to(path)
    return link


async def test_a_link_leads_to_the_new_file(path: Path, link: Path, disk: Disk) -> None:
    """At a rotation the link stays, and all files are in the folder to which it leads, which is synced."""
    async with JsonLines(link, max_bytes=1) as write:
        for event in some(3):
            write(event)
            await write.flush()
            assert read(link) == [event]
    assert link.readlink() == path
    assert list(link.parent.iterdir()) == [link]
    assert read_all(path) == some(3)
    assert path.parent.stat().st_ino in disk.synced
    assert link.parent.stat().st_ino not in disk.synced


async def test_the_folder_of_a_link_is_made(path: Path, link: Path) -> None:
    """The folder to which a link leads is made if it is missing."""
    path.parent.rmdir()
    async with JsonLines(link) as write:
        write(some(1)[0])
    assert (link.readlink(), read(path)) == (path, some(1))


async def test_full_files_of_a_link_are_compressed(path: Path, link: Path) -> None:
    """Full files that a kill left where the link leads are compressed at the next start."""
    full = path.with_name("events-20260821T000000.000000Z.jsonl")
    full.write_bytes(b"{}\n")
    async with JsonLines(link, max_bytes=10**9, compress=True):
        async with asyncio.timeout(10):
            while full.exists():
                await asyncio.sleep(0.01)
    assert {each.name for each in path.parent.iterdir()} == {path.name, f"{full.name}.gz"}


class Clock:
    """The time of day as the handler reads it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        for module in (jsonl, line_file):
            monkeypatch.setattr(module.time, "time", lambda: self.now)


async def test_a_file_ends_at_each_multiple_of_max_seconds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is begun with the first line after each multiple of ``max_seconds``, and not before."""
    clock = Clock(monkeypatch)
    events = some(5)
    async with JsonLines(path, max_seconds=3600) as write:
        for event, now in zip(events, (7200, 10799.9, 10800, 14399, 99_999), strict=True):
            clock.now = float(now)
            write(event)
            await write.flush()
    assert [len(read(file)) for file in sorted(path.parent.iterdir())] == [2, 2, 1]
    assert read_all(path) == events


async def test_a_restart_does_not_prolong_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an earlier run is full at the same time as if that run had gone on."""
    clock = Clock(monkeypatch)
    for event, now, files in zip(some(3), (7200, 9000, 10800), (1, 1, 2), strict=True):
        clock.now = float(now)
        async with JsonLines(path, max_seconds=3600) as write:
            write(event)
        os.utime(path, (now, now))
        assert len(list(path.parent.iterdir())) == files
    assert read_all(path) == some(3)


async def test_a_file_ends_in_time_without_events(path: Path) -> None:
    """A file with lines is full at its time though no event comes; an empty one stays."""
    async with JsonLines(path, max_seconds=0.2) as write:
        write(some(1)[0])
        await write.flush()
        async with asyncio.timeout(10):
            while len(list(path.parent.iterdir())) == 1:
                await asyncio.sleep(0.01)
        write._look()
        assert read(path) == []
        (full,) = set(path.parent.iterdir()) - {path}
        assert read(full) == some(1)


@pytest.mark.parametrize(
    "options", [{"max_bytes": -1}, {"max_seconds": -1.0}, {"max_seconds": float("inf")}, {"compress": True}]
)
def test_limits_that_mean_nothing(options: dict[str, Any]) -> None:
    """A limit below 0, an infinite one, and compression without any full file are refused by name."""
    with pytest.raises(SettingsError, match=next(iter(options))):
        JsonLines(Path("a.jsonl"), **options)
