"""JSON documents of records in one line each. Pure."""

from __future__ import annotations

import msgspec

from consumer.instructions import Reject
from consumer.record import Record
from schemas.formats import FormatError, unframed


def document_of(record: Record) -> bytes:
    """Return the JSON document of a record's value in one line; JSON has line ends only between its tokens.

    Raises Reject if it is none: its line could not be read.
    """
    try:
        found = bytes(unframed(record.value or b"null"))
        msgspec.json.decode(found.decode(), type=msgspec.Raw)  # of bytes, strings that are skipped are not checked
    except (msgspec.DecodeError, FormatError, UnicodeDecodeError, RecursionError) as error:
        raise Reject("the record's value is not JSON, and options.original writes it", code="not_json") from error
    return found.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in found or b"\r" in found else found


def with_position(line: bytes, record: Record) -> bytes:
    """Add the position at which a record was first consumed to a JSON object; another document is put under a name."""
    topic, partition, offset = record.origin
    position = msgspec.json.encode({"_topic": topic, "_partition": partition, "_offset": offset})
    fields = line.strip()[:-1]
    if fields[:1] != b"{":
        fields = b'{"_value":' + line
    return fields + (b"" if fields.strip() == b"{" else b",") + position[1:]
