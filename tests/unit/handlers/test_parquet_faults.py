"""Disks that are full or fail, folders that are removed, writers that hang, and options that are wrong."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest

from consumer import testing
from consumer.errors import SettingsError, SinkError
from consumer.handlers import parquet, parquet_folder
from consumer.routes.imports import import_reference
from tests.unit.handlers.databases import a_record
from tests.unit.handlers.test_parquet import DAY, START, Event, events, files, offsets, write, writer

HANDLER = "consumer.handlers.parquet:Parquet"


class Item(TypedDict):
    """An event that is a dict."""

    timestamp: datetime
    number: int


class Nameless(msgspec.Struct):
    number: int


class Own(msgspec.Struct):
    timestamp: datetime
    _offset: int


class Placed(msgspec.Struct, tag=True):
    timestamp: datetime


class Paid(msgspec.Struct, tag=True):
    timestamp: datetime


class Fault:
    """Lets calls of the system fail while it is ``on``, after some that succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, succeed: int = 0) -> None:
        self.on = False
        calls = itertools.count()  # also for calls of several threads at once
        plain: Callable[..., Any] = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.on and next(calls) >= succeed:
                raise OSError(code, os.strerror(code))
            return plain(*args, **kwargs)

        monkeypatch.setattr(os, name, call)


FAULTS = {"pwrite": errno.ENOSPC, "open": errno.EROFS, "rename": errno.EROFS}


async def refusal(kind: Any, match: dict[str, Any] | None = None, **options: Any) -> str:
    """Start a route that must be refused, and return the message."""
    with pytest.raises(SettingsError) as refused:
        async with testing.consumer(HANDLER, schemas={"t": kind}, match=match or {}, options=options):
            pass
    return str(refused.value)


@pytest.mark.parametrize("name", [*FAULTS, "mkdir"])
async def test_a_fault_holds_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Flushes fail while the disk does; rows before, during and after it are stored once."""
    fault = Fault(monkeypatch, name, FAULTS.get(name, errno.ENOSPC))
    async with writer(tmp_path) as handler:
        await write(handler, range(5))
        fault.on = True
        for begin in (5, 10):
            with pytest.raises(SinkError, match="cannot write to"):
                await handler.flush()
            await write(handler, range(begin, begin + 5))
        assert offsets(tmp_path) == []
        fault.on = False
        await handler.flush()
        assert offsets(tmp_path) == list(range(15))


@pytest.mark.parametrize("name", FAULTS)
async def test_a_full_disk_dead_letters_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Calls pause once memory or open files are used up, nothing is committed, and all goes on by itself."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 30_000)
    monkeypatch.setattr(parquet, "OPEN_FILES", 3)
    fault, options = Fault(monkeypatch, name, FAULTS[name]), {"path": str(tmp_path)}
    async with testing.consumer(HANDLER, schemas={"t": Event}, max_records=50, options=options) as app:
        await app.give(*events([0]))
        await app.advance(3)
        fault.on = True
        for begin in range(1, 4001, 500):
            await app.give(*events(range(begin, begin + 500)))
            await app.advance(5)
        assert app.outcomes.count(("Parquet", "waiting")) > 0
        assert list(app.committed.values()) == [1]
        fault.on = False
        await app.advance(300)
        assert list(app.committed.values()) == [4001]
        assert app.dead_letters == []
    assert offsets(tmp_path) == [*range(4001)]


@pytest.mark.parametrize("name", [*FAULTS, "ftruncate"])
@pytest.mark.parametrize("calls", range(4))
async def test_a_fault_while_stored_rows_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    """A flush that fails while rows of another writer are dropped from it loses none, and stores none twice."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 5_000)
    async with writer(tmp_path) as old, writer(tmp_path) as new:
        for begin in range(0, 60, 10):
            await write(old, range(begin, begin + 10))
        await write(new, range(25, 35))
        await new.flush()
        fault = Fault(monkeypatch, name, errno.ENOSPC, calls)
        fault.on = True
        with contextlib.suppress(SinkError):
            await old.flush()
        fault.on = False
        await write(old, range(60, 65))
    assert offsets(tmp_path) == list(range(65))


async def test_a_failed_sync_holds_until_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped what was written, so a later sync proves nothing; a restart writes it again."""
    handler = writer(tmp_path)
    async with writer(tmp_path) as first:
        await write(first, [0])
    await handler.__aenter__()
    await write(handler, range(1, 5))
    fault = Fault(monkeypatch, "fsync", errno.EIO)
    fault.on = True
    with pytest.raises(SinkError, match="Input/output error"):
        await handler.flush()
    fault.on = False
    with pytest.raises(SinkError, match="restart to write them again"):
        await handler.flush()
    with pytest.raises(SinkError):
        await handler.__aexit__()
    async with writer(tmp_path) as again:
        await write(again, range(1, 5))
    assert offsets(tmp_path) == list(range(5))


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("moved", [True, False])
async def test_a_name_that_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int, moved: bool
) -> None:
    """A file whose name could not be synced is not added again, also if its partition moves before the next flush."""
    async with writer(tmp_path) as old, writer(tmp_path) as new:
        await write(old, range(5))
        fault = Fault(monkeypatch, "fsync", errno.EIO, calls)
        fault.on = True
        with pytest.raises(SinkError, match="Input/output error"):
            await old.flush()
        fault.on = False
        assert files(tmp_path) == ["date=2026-01-02/t-0-0-4.parquet"]
        if moved:
            await write(new, range(8))
            await new.flush()
        await write(old, range(5, 10))
        await old.flush()
    assert offsets(tmp_path) == list(range(10))


async def test_a_folder_that_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder holds, and is not made again; once it is back, also empty, all goes on."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 1)
    path = tmp_path / "out"
    async with writer(path) as handler:
        await write(handler, range(5))
        await write(handler, range(5, 10))
        shutil.rmtree(path)
        with pytest.raises(SinkError, match="No such file or directory"):
            await handler.flush()
        assert not path.exists()
        path.mkdir()
        await handler.flush()
        assert offsets(path) == list(range(10))


async def test_what_dead_processes_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden files of a living process stay, and those of a dead one vanish at the next start."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 1)
    dead = tmp_path / ".writing" / "dead-1.tmp"
    async with writer(tmp_path) as living:
        await write(living, range(5))
        await write(living, range(5, 10))
        (own,) = tmp_path.glob(".writing/*.tmp")
        dead.write_bytes(b"PAR1")
        async with writer(tmp_path):
            pass
        assert own.exists()
        assert not dead.exists()
    assert offsets(tmp_path) == list(range(10))
    assert list(tmp_path.glob(".writing/*.tmp")) == []


async def test_a_hidden_file_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process took for a dead one's is written again from what is open."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 1)
    async with writer(tmp_path) as handler:
        await write(handler, range(5))
        await write(handler, range(5, 10))
        for each in tmp_path.glob(".writing/*.tmp"):
            each.unlink()
    assert offsets(tmp_path) == list(range(10))


async def test_a_writer_that_hangs_with_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer that stopped while it added files holds the partition, and no other, until it goes on or ends."""
    monkeypatch.setattr(parquet_folder, "LOCK_SECONDS", 0.0)
    async with writer(tmp_path) as handler:
        await write(handler, range(5))
        with (tmp_path / ".writing" / "t-0.lock").open("r+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(SinkError, match="another process that adds files of t-0"):
                await handler.flush()
        await handler.flush()
    assert offsets(tmp_path) == list(range(5))


@pytest.mark.parametrize("content", [b"", b"PAR1 no more", b"PAR1\0\0\0\0\x04\0\0\0PAR1"])
async def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    """A damaged file that may hold rows that come again holds the partition; one of other offsets does not."""
    damaged = tmp_path / "date=2026-01-02" / "t-0-3-9.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes(content)
    async with writer(tmp_path) as handler:
        await write(handler, range(20, 25))
        with pytest.raises(SinkError, match=r"t-0-3-9\.parquet cannot be read"):
            await write(handler, range(5))
        damaged.unlink()
        await write(handler, range(5))
    assert offsets(tmp_path) == [*range(5), *range(20, 25)]


async def test_a_child_keeps_no_lock(tmp_path: Path) -> None:
    """A child that a handler forked and that outlives a kill keeps no hidden file from being removed."""
    program = f"""
import asyncio, os, signal
from pathlib import Path
from consumer.handlers import parquet
from tests.unit.handlers.databases import a_record
from tests.unit.handlers.test_parquet import write, writer
parquet.BUFFER_BYTES = 1
async def main():
    async with writer(Path({str(tmp_path)!r})) as handler:
        await write(handler, range(5))
        await write(handler, range(5, 10))
        child = os.fork()
        if not child:
            signal.pause()
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        process.wait()
        try:
            assert len(list(tmp_path.glob(".writing/*.tmp"))) == 1
            async with writer(tmp_path):
                assert list(tmp_path.glob(".writing/*.tmp")) == []
        finally:
            os.kill(child, 9)


async def test_days_of_one_flush_that_fails_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill or a fault between two files of a flush leaves one of them; the repeat adds the other."""
    plain, left = os.rename, [1]

    def rename(*args: Any) -> None:
        if not left:
            raise OSError(errno.EIO, "Input/output error")
        left.pop()
        plain(*args)

    monkeypatch.setattr(os, "rename", rename)
    given = [Event(START + (each % 2) * DAY, each) for each in range(10)]
    handler = writer(tmp_path)
    await handler.__aenter__()
    await handler(given, [a_record(each) for each in range(10)])
    with pytest.raises(SinkError):
        await handler.flush()
    assert len(files(tmp_path)) == 1
    with pytest.raises(SinkError):
        await handler.__aexit__()
    monkeypatch.undo()
    async with writer(tmp_path) as again:
        await again(given, [a_record(each) for each in range(10)])
    assert offsets(tmp_path) == list(range(10))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Event, {"date_field": "timestmp"}, "Event has no field 'timestmp'; did you mean 'timestamp'?"),
        (Nameless, {}, "options.date_field: Nameless has no field 'timestamp'"),
        (Event, {"date_field": "number"}, "field 'number' of Event is neither a datetime nor a date"),
        (Event, {"compression": "rar"}, "options.compression: not one of the values it may have"),
        (Event, {"file": "x"}, "Parquet has no option 'file'"),
        (Own, {}, "Own has a field _offset, which is a column that the handler adds"),
        (dict, {}, "events of type dict have no fields to be columns; name a Struct"),
        (bytes, {}, "events of type bytes have no fields to be columns; name a Struct"),
        (Placed | Paid, {}, "a folder holds events of one type, and the route gets"),
    ],
)
async def test_a_wrong_option(tmp_path: Path, kind: Any, options: dict[str, Any], message: str) -> None:
    """Each option or type that does not fit is named, and why."""
    assert message in await refusal(kind, **{"path": str(tmp_path / "out"), **options})


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that leads to a file is refused at start."""
    (tmp_path / "file").write_text("x")
    assert "options.path: cannot write" in await refusal(Event, path=str(tmp_path / "file"))


async def test_one_class_of_a_union(tmp_path: Path) -> None:
    """A match on the tag leaves one class, which makes the columns; a TypedDict makes them too."""
    async with testing.consumer(
        HANDLER, schemas={"t": Placed | Paid}, match={"type": "Paid"}, options={"path": str(tmp_path / "a")}
    ) as app:
        await app.give(Placed(START), Paid(START))
        await app.advance(3)
    assert offsets(tmp_path / "a") == [1]
    async with testing.consumer(HANDLER, schemas={"t": Item}, options={"path": str(tmp_path / "b")}) as app:
        await app.give(Item(timestamp=START, number=3))
        await app.advance(3)
    assert offsets(tmp_path / "b") == [0]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names what to install."""
    for name in [each for each in sys.modules if each.startswith("consumer.handlers.parquet")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match="install session-consumer with the extra `parquet`"):
        import_reference(HANDLER, "routes.files.handler")
