"""The headers that say why a letter was written: in Kafka Connect's or Spring's dialect, and always in ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from consumer.dead_letters.cause import NO_ROUTE, Cause
from consumer.record import Position

Headers = Sequence[tuple[str, bytes | None]]
OURS = "session-consumer."
CONNECT = "__connect.errors."
SPRING = "kafka_dlt-"
STAGES = {"undecodable": "VALUE_CONVERTER", "too_large": "VALUE_CONVERTER", "bad_header": "HEADER_CONVERTER"}
"""Kafka Connect's names for where it went wrong; what a handler refused is a TASK_PUT."""
INTEGER_BYTES = {"partition": 4, "offset": 8}
LARGEST = {"partition": 2**31 - 1, "offset": 2**63 - 1, "attempts": 2**31 - 1, "redrives": 2**31 - 1}


class Context(NamedTuple):
    """What a letter's headers say of it; empty and 0 where they do not."""

    origin: Position
    reason: str
    route: str
    attempts: int = 0
    redrives: int = 0
    error_class: str = ""
    message: str = ""
    is_ours: bool = True
    """Whether this software wrote it; what others say in a message may quote the event."""


def write_context(
    dialect: Literal["connect", "spring"], origin: Position, timestamp_ms: int, group: str, cause: Cause, redrives: int
) -> list[tuple[str, bytes | None]]:
    """Make the block of headers for one letter."""
    block = [
        (f"{OURS}reason", cause.reason.encode()),
        (f"{OURS}route", cause.route.encode()),
        (f"{OURS}attempts", b"%d" % cause.attempts),
        (f"{OURS}redrives", b"%d" % redrives),
    ]
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
    """Part a letter's headers into the record's own and the block behind them.

    A letter that another tool wrote has no header of ours to begin the block: there it is what has its dialect's names.
    """
    begins = [index for index, (name, _) in enumerate(headers) if name == f"{OURS}reason"]
    if begins:
        return headers[: begins[-1]], headers[begins[-1] :]
    own = [each for each in headers if not each[0].startswith((CONNECT, SPRING))]
    return own, [each for each in headers if each[0].startswith((CONNECT, SPRING))]


def read_context(headers: Headers) -> Context | None:
    """Read what a letter says of itself, in either dialect; None when it does not say which record it was."""
    said = {name: value for name, value in split_headers(headers)[1] if value is not None}
    try:
        if f"{CONNECT}offset" in said:
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
        partition, offset = (read(said[place.format(name)], name) for name in ("partition", "offset"))
        return Context(
            Position(_text(said[place.format("topic")]), partition, offset),
            _text(said.get(f"{OURS}reason", b"")),
            _text(said.get(f"{OURS}route", b"")) or NO_ROUTE,
            _decimal(said.get(f"{OURS}attempts", b"0"), "attempts"),
            _decimal(said.get(f"{OURS}redrives", b"0"), "redrives"),
            _text(said.get(error_class, b"")),
            _text(said.get(message, b"")),
            is_ours=f"{OURS}reason" in said,
        )
    except (KeyError, ValueError):
        return None


def _decimal(value: bytes, name: str) -> int:
    if not value.isdigit():  # int() would also take signs, spaces and underscores
        raise ValueError(f"{name} is no number")
    return _in_range(int(value), name)


def _big_endian(value: bytes, name: str) -> int:
    if len(value) != INTEGER_BYTES[name]:
        raise ValueError(f"{name} has {len(value)} bytes")
    return _in_range(int.from_bytes(value, "big", signed=True), name)


def _in_range(number: int, name: str) -> int:
    if not 0 <= number <= LARGEST[name]:
        raise ValueError(f"{name} is not one that Kafka has")
    return number


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")
