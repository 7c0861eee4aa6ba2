"""The JSON Lines file: complete lines, each once, and one writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.handlers import jsonl
from consumer.handlers.jsonl import JsonLines
from consumer.routes.load import load_handler
from consumer.settings.sections import RouteSettings
from schemas.session import Session
from schemas.wire import session_reader
from tests.unit.handlers.files import Disk, read, some


async def test_lines_are_written_at_flush(path: Path) -> None:
    """Events stay in memory until flush; after it the file holds them unchanged."""
    events = some(20)
    async with JsonLines(path) as write:
        for event in events:
            write(event)
        assert path.read_bytes() == b""
        await write.flush()
        assert read(path) == events


async def test_flush_syncs_what_it_wrote(path: Path, disk: Disk) -> None:
    """A flush returns after the file and its name are synced, and syncs nothing when nothing was written."""
    async with JsonLines(path) as write:
        await write.flush()
        assert disk.synced == []
        write(some(1)[0])
        await write.flush()
        await write.flush()
        assert disk.synced == [path.stat().st_ino, path.parent.stat().st_ino]
        write(some(1)[0])
        await write.flush()
        assert disk.synced[2:] == [path.stat().st_ino]


async def test_a_full_buffer_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full buffer is written without a flush, so that memory stays bounded; each line is written once."""
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
    """Leaving the handler writes and syncs what is in memory; leaving twice is harmless."""
    events = some(3)
    write = JsonLines(path)
    async with write:
        for event in events:
            write(event)
    assert read(path) == events
    assert path.stat().st_ino in disk.synced
    await write.__aexit__(None, None, None)


async def test_an_existing_file_is_appended_to(path: Path) -> None:
    """An existing file is appended to."""
    events = some(4)
    for half in (events[:2], events[2:]):
        async with JsonLines(path) as write:
            for event in half:
                write(event)
    assert read(path) == events


@given(st.text(), st.text())
def test_any_text_is_one_line(source: str, name: str) -> None:
    """An event with any text is one line, and the line decodes to that event."""
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


async def test_one_file_has_one_writer(path: Path) -> None:
    """A second handler on the same file is refused with the file's name; the first goes on."""
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


ORPHAN = """
import asyncio, os, signal, sys
from pathlib import Path
from consumer.handlers.jsonl import JsonLines

async def main():
    async with JsonLines(Path(sys.argv[1])) as write:
        write({})
        write._write()
        Path(sys.argv[1]).rename(Path(sys.argv[1]).with_name("moved"))  # its lines are not synced: it stays open
        write.reopen()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
        signal.pause()

asyncio.run(main())
"""


async def test_a_child_does_not_keep_the_lock(path: Path) -> None:
    """When a process is killed, a child that it forked and that lives on has neither its files nor their locks."""
    with subprocess.Popen([sys.executable, "-c", ORPHAN, path], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        child = int(next(line for line in killed.stdout if line.strip().isdigit()))
        killed.kill()
        killed.wait()
        try:
            for file in (path, path.with_name("moved")):
                async with JsonLines(file):
                    pass
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_rotated_file_has_one_writer(path: Path) -> None:
    """After a rotation a second handler on the new file is refused too."""
    async with JsonLines(path, max_bytes=1) as write:
        for event in some(2):
            write(event)
            await write.flush()
        with pytest.raises(SettingsError, match="is already written"):
            await JsonLines(path).__aenter__()


async def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that is a folder, or below a file, is refused with its name at start."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "events.jsonl"):
        with pytest.raises(SettingsError) as refused:
            await JsonLines(path).__aenter__()
        assert f"options.path: cannot write {path}: " in str(refused.value)


def test_it_is_a_handler() -> None:
    """JsonLines loads like any handler: it has options, a flush and a context."""
    options = {"path": "a.jsonl", "max_bytes": 5}
    handler = load_handler(RouteSettings("r", "consumer.handlers.jsonl:JsonLines", options=options), "routes[0]", {}, 1)
    assert (handler.is_async, handler.wants_record) == (False, False)
    assert handler.flush is not None
    assert handler.context is handler.call


async def test_workers_write_files_of_their_own(path: Path) -> None:
    """Two workers with the same settings write two files, each named by its worker."""
    route = RouteSettings("all", "consumer.handlers.jsonl:JsonLines", options={"path": str(path)})
    for worker in (1, 2):
        handler = load_handler(route, "routes[0]", {}, 1, worker=worker)
        async with handler.context:
            handler.call(some(1)[0])
    assert {each.name for each in path.parent.iterdir()} == {f"{path.stem}-{each}{path.suffix}" for each in (1, 2)}
