"""Lines with positions, and lines of the record's own bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.handlers.jsonl import JsonLines
from consumer.instructions import Reject
from consumer.record import Position, Record
from consumer.routes.load import load_handler
from consumer.settings.sections import RouteSettings
from schemas.session import Session
from schemas.wire import session_reader
from tests.unit.handlers.files import some

PRETTY = b'\r\n{\n  "timestamp": "2024-10-21T14:05:00Z",\r\n  "extra": ["a\\nb", {}]\n}\n'


def a_record(value: bytes | None, letter_of: Position | None = None) -> Record:
    return Record("t", 3, 7, 1, b"k", value, (), letter_of)


async def line_of(path: Path, event: Session | bytes | None, record: Record, **options: Any) -> Any:
    """Write one event and return its line, which must be the only one."""
    async with JsonLines(path, **options) as write:
        write(event, record)
    assert path.read_bytes().count(b"\n") == 1
    assert b"\r" not in path.read_bytes()
    return json.loads(path.read_bytes())


async def test_positions_are_added(path: Path) -> None:
    """Each line has the event's fields, then topic, partition and offset of its record."""
    (event,) = some(1)
    found = await line_of(path, event, a_record(b"{}"), positions=True)
    assert found == json.loads(msgspec.json.encode(event)) | {"_topic": "t", "_partition": 3, "_offset": 7}
    assert list(found)[-3:] == ["_topic", "_partition", "_offset"]


async def test_a_redriven_record_has_its_first_position(path: Path) -> None:
    """A redriven record's line has the position at which it was first consumed."""
    found = await line_of(path, some(1)[0], a_record(b"{}", Position("first", 1, 2)), positions=True)
    assert (found["_topic"], found["_partition"], found["_offset"]) == ("first", 1, 2)


@pytest.mark.parametrize("value", [PRETTY, PRETTY.strip(), PRETTY.replace(b"\n", b"\r")])
async def test_the_original_keeps_unknown_fields(path: Path, value: bytes) -> None:
    """The line is the record's value in one line, with fields that the event lacks."""
    found = await line_of(path, session_reader()(value), a_record(value), original=True)
    assert found == json.loads(value)


@pytest.mark.parametrize("value", [PRETTY, b"{}", b" { } "])
async def test_the_original_with_positions(path: Path, value: bytes) -> None:
    """The positions are added to the record's own fields, also when it has none."""
    found = await line_of(path, some(1)[0], a_record(value), original=True, positions=True)
    assert found == json.loads(value) | {"_topic": "t", "_partition": 3, "_offset": 7}


@pytest.mark.parametrize("value", [b"\0\0\0\0\7" + PRETTY, PRETTY])
async def test_the_original_behind_a_schema_id(path: Path, value: bytes) -> None:
    """The line of a framed record is its document."""
    assert await line_of(path, some(1)[0], a_record(value), original=True) == json.loads(PRETTY)


DEEP = b"[" * 100_000 + b"]" * 100_000
NO_JSON = [b"\x81\xa1a\x01", b"\xff", b"\0\0", b"{", b'{"a":1}{', b'{"a":"\xff"}', DEEP]


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: repr(value[:12]))
@pytest.mark.parametrize("positions", [False, True])
async def test_an_original_that_is_not_json_is_rejected(path: Path, value: bytes, *, positions: bool) -> None:
    """A value that would make a line that is not JSON becomes a dead letter, with a code."""
    with pytest.raises(Reject) as rejected:
        await line_of(path, some(1)[0], a_record(value), original=True, positions=positions)
    assert rejected.value.code == "not_json"


async def test_bytes_are_text_in_base64(path: Path) -> None:
    """A handler of bytes writes them as text; with positions under a name."""
    assert await line_of(path, b"\xff", a_record(b"\xff")) == "/w=="
    found = await line_of(path.with_suffix(".2"), b"\xff", a_record(b"\xff"), positions=True)
    assert found == {"_value": "/w==", "_topic": "t", "_partition": 3, "_offset": 7}


@pytest.mark.parametrize("original", [False, True])
async def test_a_tombstone_has_only_its_position(path: Path, *, original: bool) -> None:
    """A tombstone's line is its position; without positions it is null."""
    found = await line_of(path, None, a_record(None), original=original, positions=True)
    assert found == {"_topic": "t", "_partition": 3, "_offset": 7}


@pytest.mark.parametrize(
    ("options", "wants_record"), [({}, False), ({"positions": True}, True), ({"original": True}, True)]
)
def test_records_are_made_only_when_needed(options: dict[str, bool], wants_record: bool) -> None:
    """The handler asks for Records only with the options that need them: making one costs time."""
    route = RouteSettings("r", "consumer.handlers.jsonl:JsonLines", options={"path": "a.jsonl", **options})
    assert load_handler(route, "routes[0]", {}, 1).wants_record is wants_record
