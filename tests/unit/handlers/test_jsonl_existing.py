"""A file that is there before the handler: what a kill left of ours is mended, and what is not ours stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer.errors import SettingsError
from consumer.handlers import line_file
from consumer.handlers.jsonl import JsonLines
from consumer.instructions import Pause
from consumer.record import Record
from schemas.session import Session
from tests.unit.handlers.files import Disk, read, read_all, some

HALF = b'{"source": "' + b"x" * 200_000
FOREIGN = {
    "an array": b"[" + b'{"important":1},' * 1000 + b"{}]",
    "a text": b"important " * 1000,
    "pretty JSON": b'{\n  "important": 1\n}',
    "a table": b"a,b\n1,2",
    "an archive": b"\x1f\x8b\x08\x00" + b"\x00" * 1000,
}


def lines(events: list[Session]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


@pytest.fixture(autouse=True)
def folder(path: Path) -> None:
    path.parent.mkdir()


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
async def test_a_file_that_is_not_ours_is_refused(path: Path, content: bytes) -> None:
    """A file that ends in the middle of what is no line of ours is refused by name at start, and is not changed."""
    path.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        await JsonLines(path).__aenter__()
    assert f"options.path: {path} was not written by this handler" in str(refused.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("whole", [0, 2])
async def test_half_a_line_has_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    """What is longer than any line is not cut off; the file is refused."""
    monkeypatch.setattr(line_file, "MAX_LINE_BYTES", 1000)
    path.write_bytes(lines(some(whole)) + HALF[:1001])
    with pytest.raises(SettingsError, match="was not written by this handler"):
        await JsonLines(path).__aenter__()
    assert path.read_bytes() == lines(some(whole)) + HALF[:1001]
    path.write_bytes(lines(some(whole)) + HALF[:1000])
    async with JsonLines(path) as write:
        write(some(1)[0])
    assert read(path) == some(whole) + some(1)


async def test_a_refused_file_is_not_locked(path: Path) -> None:
    """A file that was refused can be opened once it ends with a newline, by the same process."""
    path.write_bytes(b"important")
    with pytest.raises(SettingsError):
        await JsonLines(path).__aenter__()
    path.write_bytes(b"important\n")
    async with JsonLines(path) as write:
        write(some(1)[0])
    assert path.read_bytes() == b"important\n" + lines(some(1))


@pytest.mark.parametrize("content", [HALF[:500], lines(some(2)) + HALF, b'{"id": 1}', lines(some(1))])
async def test_opening_changes_nothing(path: Path, content: bytes) -> None:
    """Entering and leaving the handler, as ``check`` does, leaves a file as it is, and its time too."""
    path.write_bytes(content)
    before = path.stat().st_mtime_ns
    async with JsonLines(path, max_bytes=10**9, max_seconds=10**6):
        pass
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, before)


@pytest.mark.parametrize("length", [1, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("whole", [0, 1, 3])
async def test_half_a_line_is_cut_off(path: Path, length: int, whole: int) -> None:
    """Half a line that a kill left is cut off before the first write, which the log says; complete lines stay."""
    events = some(whole + 1)
    path.write_bytes(lines(events[:whole]) + HALF[:length])
    with capture_logs() as logged:
        async with JsonLines(path) as write:
            write(events[whole])
    assert read(path) == events
    assert logged == [{"event": "half_line_cut", "log_level": "warning", "file": str(path), "bytes": length}]


async def test_a_line_without_its_newline_is_ended(path: Path) -> None:
    """A complete last line that lacks its newline is kept, whoever wrote it."""
    path.write_bytes(lines(some(2))[:-1])
    async with JsonLines(path) as write:
        write(some(3)[2])
    assert read(path) == some(3)


async def test_half_a_line_is_no_part_of_a_full_file(path: Path) -> None:
    """A file that is full at its first write is renamed with whole lines only."""
    path.write_bytes(lines(some(2)) + HALF)
    async with JsonLines(path, max_bytes=1) as write:
        write(some(3)[2])
    assert read_all(path) == some(3)


async def test_lines_of_others_are_not_cut_off(path: Path) -> None:
    """What another program appended between the opening and the first write stays."""
    path.write_bytes(HALF[:500])
    async with JsonLines(path) as write:
        with path.open("ab") as file:
            file.write(b'"}\n{"id": 2}\n')
        write(some(1)[0])
    assert path.read_bytes() == HALF[:500] + b'"}\n{"id": 2}\n' + lines(some(1))


async def test_half_a_line_on_a_full_disk(path: Path, disk: Disk) -> None:
    """A newline that the disk does not take yet is written before the first line."""
    path.write_bytes(lines(some(1))[:-1])
    async with JsonLines(path) as write:
        write(some(2)[1])
        disk.room = 0
        with pytest.raises(Pause, match="No space left"):
            await write.flush()
        disk.room = None
    assert read(path) == some(2)


@given(
    value=st.one_of(st.none(), st.dictionaries(st.text(), st.integers())),
    indent=st.sampled_from([None, 2]),
    margin=st.text(" \t\r\n"),
    options=st.fixed_dictionaries({"original": st.booleans(), "positions": st.booleans()}),
    data=st.data(),
)
async def test_any_begin_of_our_lines_is_ours(
    tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, margin: str, options: Any, data: Any
) -> None:
    """Wherever a kill ends a write, and whatever the options are, the next start goes on with the file."""
    path = tmp_path_factory.mktemp("killed") / "events.jsonl"
    text = None if value is None else (margin + json.dumps(value, indent=indent)).encode()
    record = Record("t", 0, 0, 0, None, text, ())
    async with JsonLines(path, **options) as write:
        write(value, record)
    written = path.read_bytes()
    path.write_bytes(written[: data.draw(st.integers(0, len(written)))])
    async with JsonLines(path, **options) as write:
        write(value, record)
    assert path.read_bytes() in (written, written * 2)
