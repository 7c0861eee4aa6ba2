"""The JSON Lines file when others move, replace, delete or truncate it: no line is lost."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.errors import SettingsError
from consumer.handlers.jsonl import JsonLines
from consumer.instructions import Pause
from schemas.session import Session
from tests.unit.handlers.files import Write, read, some


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def replace(path: Path) -> None:
    move(path)
    path.touch()


def pack(path: Path) -> None:
    """Do what a rotator does that compresses at once: what is written to the old file after that is lost."""
    replace(path)
    moved = path.with_name("moved")
    moved.with_name("packed").write_bytes(moved.read_bytes())
    moved.unlink()


def delete(path: Path) -> None:
    path.unlink()


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def copy_and_truncate(path: Path) -> None:
    shutil.copy(path, path.with_name("copied"))
    os.truncate(path, 0)


KEEPING = [move, replace, pack, copy_and_truncate]
ALL = [*KEEPING, delete, delete_folder]
Rotator = Callable[[Path], None]


def kept(path: Path) -> list[Session]:
    """Read the file and what was made of it, the oldest first."""
    others = sorted(set(path.parent.iterdir()) - {path})
    return [event for file in [*others, path] for event in read(file)]


@pytest.mark.parametrize("rotate", ALL)
async def test_what_follows_is_written_to_a_new_file(path: Path, rotate: Rotator) -> None:
    """Lines after a rotation are where the path leads, and those before it are wherever they were moved."""
    events = some(4)
    async with JsonLines(path) as write:
        for event in events[:2]:
            write(event)
        await write.flush()
        rotate(path)
        for event in events[2:]:
            write(event)
        await write.flush()
        assert read(path) == events[2:]
        assert kept(path) == (events if rotate in KEEPING else events[2:])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rotate", ALL)
async def test_a_rotation_during_a_write(
    path: Path, monkeypatch: pytest.MonkeyPatch, rotate: Rotator, when: str
) -> None:
    """Lines that are written while their file is rotated are written again where the path leads."""
    events = some(3)
    real: Write = os.write
    todo = [rotate]

    def rotating(file: int, data: bytes) -> int:
        if when == "before" and todo:
            todo.pop()(path)
        written = real(file, data)
        if when == "after" and todo:
            todo.pop()(path)
        return written

    async with JsonLines(path) as write:
        write(events[0])
        await write.flush()
        for event in events[1:]:
            write(event)
        monkeypatch.setattr(os, "write", rotating)
        await write.flush()
        assert not todo
        assert read(path)[-2:] == events[1:]


async def test_a_file_that_never_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is moved during each write fails the flush by name, and its lines are written once it stays."""
    real: Write = os.write

    def moving(file: int, data: bytes) -> int:
        written = real(file, data)
        move(path)
        return written

    async with JsonLines(path) as write:
        write(some(1)[0])
        monkeypatch.setattr(os, "write", moving)
        with pytest.raises(Pause, match="was moved away") as failed:
            await write.flush()
        assert str(path) in str(failed.value)
        monkeypatch.setattr(os, "write", real)
        await write.flush()
        assert read(path) == some(1)


async def test_a_new_file_that_another_writes(path: Path) -> None:
    """When the file that replaces ours has another writer, the lines wait until it is free."""
    async with JsonLines(path) as write:
        write(some(1)[0])
        move(path)
        async with JsonLines(path):
            with pytest.raises(Pause, match="is already written"):
                await write.flush()
        await write.flush()
        assert read(path) == some(1)


async def test_reopen_begins_the_file_and_leaves_the_old_one(path: Path) -> None:
    """A reopen begins the new file at once and gives up the moved one; without a rotation it changes nothing."""
    async with JsonLines(path) as write:
        write(some(1)[0])
        await write.flush()
        before = path.stat().st_ino
        write.reopen()
        assert path.stat().st_ino == before
        move(path)
        write.reopen()
        assert read(path) == []
        async with JsonLines(path.with_name("moved")):  # it has no lock any more
            pass
    write.reopen()


async def test_reopen_syncs_what_the_old_file_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that were not flushed before a reopen are synced in the old file by the next flush."""
    synced: list[int] = []
    real = os.fsync

    def note(file: int) -> None:
        real(file)
        synced.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    async with JsonLines(path) as write:
        write(some(1)[0])
        write._write()
        old = path.stat().st_ino
        move(path)
        write.reopen()
        assert old not in synced
        await write.flush()
        assert old in synced


async def test_others_lines_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails cuts off its own part only, also when somebody else has appended a line."""
    events = some(3)
    real: Write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return real(file, data[:10])

    async with JsonLines(path) as write:
        write(events[0])
        await write.flush()
        line = path.read_bytes()
        with path.open("ab") as file:
            file.write(line)
        write(events[1])
        monkeypatch.setattr(os, "write", lambda file, data: full(file, data[:20] if len(data) > 20 else b""))
        with pytest.raises(Pause):
            await write.flush()
        monkeypatch.setattr(os, "write", real)
        assert path.read_bytes() == line * 2
        await write.flush()
    assert read(path) == [events[0], events[0], events[1]]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """Folders, pipes, sockets and devices are refused at start, by name and kind, and without opening them."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        found = {
            tmp_path: "a folder",
            tmp_path / "pipe": "a pipe",
            tmp_path / "socket": "a socket",
            Path("/dev/null"): "a device",
        }
        for path, kind in found.items():
            with pytest.raises(SettingsError) as refused:
                open_and_close(path)
            assert str(refused.value).startswith(f"options.path: cannot write {path}: it is {kind}, ")


def open_and_close(path: Path) -> None:
    entering = JsonLines(path).__aenter__()
    with pytest.raises(StopIteration):
        entering.send(None)
