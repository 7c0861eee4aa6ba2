"""The file of JSON Lines: whole lines, each once, on disk when flush returns, and none ever deleted."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, tzinfo
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.handlers import jsonl
from consumer.handlers.jsonl import JsonLines
from consumer.routes.load import load_handler
from consumer.settings.sections import RouteSettings
from schemas.samples import sessions
from schemas.session import Session
from schemas.wire import session_reader

Write = Callable[[int, bytes], int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "events.jsonl"


def some(count: int, seed: int = 0) -> list[Session]:
    return list(islice(sessions(seed), count))


def read(file: Path) -> list[Session]:
    """Read a file as its users do; its last line has an end."""
    *lines, rest = file.read_bytes().split(b"\n")
    assert rest == b""
    return list(map(session_reader(), lines))


def read_all(path: Path) -> list[Session]:
    """Read the files that were begun one after the other, the current one last."""
    old = sorted(each for each in path.parent.iterdir() if each != path)
    return [event for file in [*old, path] for event in read(file)]


class Disk:
    """A disk that is full after so many bytes, and whose next syncs fail when told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.failing_syncs = 0
        self.synced: list[int] = []
        self._write: Write = os.write
        self._fsync = os.fsync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def write(self, file: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(file, data if self.room is None else data[: self.room])
        if self.room is not None:
            self.room -= written
        return written

    def fsync(self, file: int) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._fsync(file)
        self.synced.append(os.fstat(file).st_ino)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    yield Disk(monkeypatch)
    monkeypatch.undo()


# -- lines -------------------------------------------------------------------------------------------------------------


async def test_lines_are_written_at_flush(path: Path) -> None:
    """What was handled is in memory until flush, and in the file, equal to what was consumed, after it."""
    events = some(20)
    async with JsonLines(path) as write:
        for event in events:
            write(event)
        assert path.read_bytes() == b""
        await write.flush()
        assert read(path) == events


async def test_flush_syncs_what_it_wrote(path: Path, disk: Disk) -> None:
    """A flush returns after the file was synced, and syncs nothing when nothing was written."""
    async with JsonLines(path) as write:
        await write.flush()
        assert disk.synced == []
        write(some(1)[0])
        await write.flush()
        await write.flush()
        assert disk.synced == [path.stat().st_ino]


async def test_a_full_buffer_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its limit the buffer is written without a flush, so that memory stays bounded; still each line once."""
    monkeypatch.setattr(jsonl, "BUFFER_BYTES", 500)
    events = some(20)
    async with JsonLines(path) as write:
        for event in events:
            write(event)
        early = read(path)
        assert early == events[: len(early)]
        assert 10 < len(early) < 20
        await write.flush()
        assert read(path) == events


async def test_closing_flushes(path: Path, disk: Disk) -> None:
    """What is in memory when the handler is left is written and synced; leaving twice does no harm."""
    events = some(3)
    write = JsonLines(path)
    async with write:
        for event in events:
            write(event)
    assert read(path) == events
    assert disk.synced == [path.stat().st_ino]
    await write.__aexit__(None, None, None)


async def test_an_existing_file_is_appended_to(path: Path) -> None:
    """A file that is there is gone on with."""
    events = some(4)
    for half in (events[:2], events[2:]):
        async with JsonLines(path) as write:
            for event in half:
                write(event)
    assert read(path) == events


@pytest.mark.parametrize("length", [1, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("whole", [0, 1, 3])
async def test_half_a_line_is_cut_off(path: Path, length: int, whole: int) -> None:
    """Half a line left by a kill is cut off when the file is opened, however long; whole lines stay."""
    events = some(whole + 1)
    path.parent.mkdir()
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events[:whole]) + b"x" * length)
    async with JsonLines(path) as write:
        assert read(path) == events[:whole]
        write(events[whole])
    assert read(path) == events


@given(st.text(), st.text())
def test_any_text_is_one_line(source: str, name: str) -> None:
    """Whatever an event's texts hold, it is one line, and the line is that event."""
    event = Session(timestamp=some(1)[0].timestamp, source=source, agent_name=name)
    write = JsonLines(Path("unopened.jsonl"))
    write(event)
    (line,) = write._lines
    assert line.count(b"\n") == 1
    assert session_reader()(line) == event


async def test_a_line_separator_in_a_field_is_no_end_of_line(path: Path) -> None:
    """A field with U+2028, U+0085 or a newline stays in its line."""
    event = Session(timestamp=some(1)[0].timestamp, agent_name="a\u2028b\u2029c\x85d\ne\r\nf")
    async with JsonLines(path) as write:
        write(event)
        write(event)
    assert path.read_bytes().count(b"\n") == 2
    assert read(path) == [event, event]


# -- opening -----------------------------------------------------------------------------------------------------------


async def test_one_file_has_one_writer(path: Path) -> None:
    """A second handler on the same file is refused by the file's name, and the first is not disturbed."""
    async with JsonLines(path) as write:
        write(some(1)[0])
        with pytest.raises(SettingsError) as refused:
            await JsonLines(path).__aenter__()
        assert f"{path} is already written" in str(refused.value)
    assert read(path) == some(1)
    async with JsonLines(path):
        pass


async def test_one_file_has_one_process(path: Path) -> None:
    """A second process on the same file is refused."""
    code = "import asyncio, sys; from pathlib import Path; from consumer.handlers.jsonl import JsonLines\n"
    code += "asyncio.run(JsonLines(Path(sys.argv[1])).__aenter__())"
    async with JsonLines(path):
        second = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"{path} is already written" in second.stderr


async def test_a_rotated_file_has_one_writer(path: Path) -> None:
    """After a rotation the new file is as closed to others as the first was."""
    async with JsonLines(path, max_bytes=1) as write:
        for event in some(2):
            write(event)
            await write.flush()
        with pytest.raises(SettingsError, match="is already written"):
            await JsonLines(path).__aenter__()


async def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that is a folder, or below a file, is refused by name at start."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "events.jsonl"):
        with pytest.raises(SettingsError) as refused:
            await JsonLines(path).__aenter__()
        assert f"options.path: cannot write {path}: " in str(refused.value)


def test_it_is_a_handler() -> None:
    """It loads as any person's handler does: its options are read, it is flushed, entered and left."""
    options = {"path": "a.jsonl", "max_bytes": 5}
    handler = load_handler(RouteSettings("r", "consumer.handlers.jsonl:JsonLines", {}, options), "routes[0]", {})
    assert (handler.is_async, handler.wants_record) == (False, False)
    assert handler.flush is not None
    assert handler.context is handler.call


# -- rotation ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2000), st.lists(st.booleans(), max_size=30))
async def test_rotation_keeps_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, limit: int, flushes: list[bool]
) -> None:
    """However large files may grow and whenever they are flushed, all files together hold each line once, in order."""
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
    """A file that has grown past ``max_bytes`` gets its time in its name, and is synced before it is let go."""
    async with JsonLines(path, max_bytes=10) as write:
        for event in some(3):
            write(event)
            await write.flush()
    files = sorted(path.parent.iterdir())
    assert [len(read(file)) for file in files] == [1, 1, 1]
    assert all(file.match("events-????????T??????.??????Z.jsonl") for file in files if file != path)
    assert set(disk.synced) == {file.stat().st_ino for file in [*files, path.parent]}


async def test_no_two_files_get_one_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back or stands still makes no file replace an earlier one."""

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
    """When no new file can be begun, the old one stays in place and its lines wait; later it works again."""
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


# -- a disk that fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 300, 700])
async def test_a_full_disk_leaves_no_half_line(path: Path, disk: Disk, room: int) -> None:
    """When the disk is full nothing is written in part and nothing is lost; with room again all goes on."""
    events = some(6)
    async with JsonLines(path) as write:
        write(events[0])
        await write.flush()
        for event in events[1:5]:
            write(event)
        for _ in range(2):
            disk.room = room
            with pytest.raises(OSError, match="No space left"):
                await write.flush()
            assert read(path) == events[:1]
        disk.room = None
        write(events[5])
        await write.flush()
        assert read(path) == events


async def test_a_full_disk_and_a_full_buffer(path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both full the call fails and its event is not kept: called again, it is in the file once."""
    monkeypatch.setattr(jsonl, "BUFFER_BYTES", 1)
    events = some(2)
    async with JsonLines(path) as write:
        write(events[0])
        disk.room = 5
        with pytest.raises(OSError, match="No space left"):
            write(events[1])
        disk.room = None
        write(events[1])
    assert read(path) == events


async def test_short_writes_are_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes only a part is followed by one for the rest."""
    real: Write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    async with JsonLines(path) as write:
        for event in some(5):
            write(event)
    assert read(path) == some(5)


async def test_a_failed_sync_stays_failed(path: Path, disk: Disk) -> None:
    """After one failed sync no flush of that file succeeds: the kernel may have dropped what it could not write."""
    write = await JsonLines(path).__aenter__()
    write(some(1)[0])
    disk.failing_syncs = 1
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            await write.flush()
        write(some(1)[0])
    with pytest.raises(OSError, match="Input/output error"):
        await write.__aexit__(None, None, None)
    async with JsonLines(path):
        assert len(read(path)) == 4


async def test_a_failed_sync_stays_failed_after_rotation(path: Path, disk: Disk) -> None:
    """A file whose sync failed is not forgiven when a new one is begun: its lines may be lost."""
    write = await JsonLines(path, max_bytes=1).__aenter__()
    write(some(1)[0])
    disk.failing_syncs = 1
    with pytest.raises(OSError, match="Input/output error"):
        await write.flush()
    write(some(1)[0])
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            await write.flush()
    with pytest.raises(OSError, match="Input/output error"):
        await write.__aexit__(None, None, None)


async def test_a_flush_that_is_cancelled_can_be_done_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is given up cancels its flush, and its sync goes on alone: the next flushes work all the same."""
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
