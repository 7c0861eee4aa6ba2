"""Headers with the cause of a letter: in Kafka Connect's or Spring's dialect, and always in ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from consumer.dead_letters.cause import NO_ROUTE, Cause
from consumer.instructions import is_code
from consumer.record import Position

Headers = Sequence[tuple[str, bytes | None]]
OURS = "session-consumer."
CONNECT = "__connect.errors."
SPRING = "kafka_dlt-"
STAGES = {"undecodable": "VALUE_CONVERTER", "too_large": "VALUE_CONVERTER", "bad_header": "HEADER_CONVERTER"}
"""Kafka Connect's names for the failed stage; a failed handler is TASK_PUT."""
INTEGER_BYTES = {"partition": 4, "offset": 8}
LARGEST = {"partition": 2**31 - 1, "offset": 2**63 - 1, "attempts": 2**31 - 1, "redrives": 2**31 - 1}


class Context(NamedTuple):
    """The cause of a letter as its headers state it; empty or 0 for a missing header."""

    origin: Position
    reason: str
    route: str
    attempts: int = 0
    redrives: int = 0
    error_class: str = ""
    message: str = ""
    is_ours: bool = True
    """Whether this software wrote the letter; a message of other software may quote the event."""
    group: str = ""
    """Consumer group of the daemon that wrote the letter; empty if the letter does not name it."""
    code: str = ""
    """Code of the handler's Reject."""

    def is_of(self, group: str) -> bool:
        """Whether the letter belongs to a group. Letters that name no group belong to every group."""
        return self.group in ("", group)


def write_context(
    dialect: Literal["connect", "spring"], origin: Position, timestamp_ms: int, group: str, cause: Cause, redrives: int
) -> list[tuple[str, bytes | None]]:
    """Return the context headers of one letter."""
    block = [
        (f"{OURS}reason", cause.reason.encode()),
        (f"{OURS}route", cause.route.encode()),
        (f"{OURS}attempts", b"%d" % cause.attempts),
        (f"{OURS}redrives", b"%d" % redrives),
        (f"{OURS}group", group.encode()),
    ]
    if cause.code:
        block.append((f"{OURS}code", cause.code.encode()))
    if dialect == "connect":
        texts = {
            "topic": origin.topic,
            "partition": str(origin.partition),
            "offset": str(origin.offset),
            "stage": STAGES.get(cause.reason, "TASK_PUT"),
            "exception.class.name": cause.error_class,
            "exception.message": cause.message,
        }
        return [*block, *((f"{CONNECT}{name}", _ascii(text)) for name, text in texts.items())]
    return [
        *block,
        (f"{SPRING}original-topic", origin.topic.encode()),
        (f"{SPRING}original-partition", origin.partition.to_bytes(4, "big", signed=True)),
        (f"{SPRING}original-offset", origin.offset.to_bytes(8, "big", signed=True)),
        (f"{SPRING}original-timestamp", (timestamp_ms or 0).to_bytes(8, "big", signed=True)),
        (f"{SPRING}original-consumer-group", group.encode()),
        (f"{SPRING}exception-fqcn", _ascii(cause.error_class)),
        (f"{SPRING}exception-message", _ascii(cause.message)),
    ]


def split_headers(headers: Headers) -> tuple[Headers, Headers]:
    """Split a letter's headers into the record's own and the context headers after them.

    In a letter of another tool no header of ours begins the context: there the names of its dialect identify it.
    """
    begins = [index for index, (name, _) in enumerate(headers) if name == f"{OURS}reason"]
    if begins:
        return headers[: begins[-1]], headers[begins[-1] :]
    own = [each for each in headers if not each[0].startswith((CONNECT, SPRING))]
    return own, [each for each in headers if each[0].startswith((CONNECT, SPRING))]


def read_context(headers: Headers) -> Context | None:
    """Read the context of a letter in either dialect; None when it does not name the record's position."""
    given = {name: value for name, value in split_headers(headers)[1] if value is not None}
    code = _text(given.get(f"{OURS}code", b""))
    try:
        if f"{CONNECT}offset" in given:
            place, error_class, message = (
                f"{CONNECT}{{}}",
                f"{CONNECT}exception.class.name",
                f"{CONNECT}exception.message",
            )
            read = _decimal
        else:
            place, error_class, message = (
                f"{SPRING}original-{{}}",
                f"{SPRING}exception-fqcn",
                f"{SPRING}exception-message",
            )
            read = _big_endian
        partition, offset = (read(given[place.format(name)], name) for name in ("partition", "offset"))
        return Context(
            Position(_text(given[place.format("topic")]), partition, offset),
            _text(given.get(f"{OURS}reason", b"")),
            _text(given.get(f"{OURS}route", b"")) or NO_ROUTE,
            _decimal(given.get(f"{OURS}attempts", b"0"), "attempts"),
            _decimal(given.get(f"{OURS}redrives", b"0"), "redrives"),
            _text(given.get(error_class, b"")),
            _text(given.get(message, b"")),
            is_ours=f"{OURS}reason" in given,
            group=_text(given.get(f"{OURS}group", b"")),
            code=code if is_code(code) else "",  # a text of other software may quote the event
        )
    except (KeyError, ValueError):
        return None


def _decimal(value: bytes, name: str) -> int:
    if not value.isdigit():  # int() would also take signs, spaces and underscores
        raise ValueError(f"{name} is not a number")
    return _in_range(int(value), name)


def _big_endian(value: bytes, name: str) -> int:
    if len(value) != INTEGER_BYTES[name]:
        raise ValueError(f"{name} has {len(value)} bytes")
    return _in_range(int.from_bytes(value, "big", signed=True), name)


def _in_range(number: int, name: str) -> int:
    if not 0 <= number <= LARGEST[name]:
        raise ValueError(f"{name} is out of Kafka's range")
    return number


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")
