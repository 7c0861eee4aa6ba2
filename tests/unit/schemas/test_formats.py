"""Formats and framings: what becomes of the bytes of a value, and what is said about wrong ones."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest

from schemas.formats import FormatError, UnknownTag, make_reader
from schemas.session import Session
from schemas.types import BYTES, event_type

SESSION = b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"1"}'
CAMEL = b'{"timestamp":"2024-10-21T14:05:00Z","sessionId":"1","unknown":[]}'


class Order(msgspec.Struct):
    order_id: int
    lines: list[str] = []


class Placed(msgspec.Struct, tag_field="kind", tag="placed"):
    order_id: int


class Paid(msgspec.Struct, tag_field="kind", tag="paid"):
    order_id: int
    amount: float


@dataclass
class Plain:
    order_id: int


class Table(TypedDict):
    order_id: int


def read(value: Any, kind: Any = Order, form: str = "json", framing: str = "none", **options: bool) -> Any:
    """Decode a value as the flat loop does: by ``first``, and by ``reread`` if that refuses it."""
    reader = make_reader(event_type(kind), form, framing, **options)
    try:
        return reader.first(value)
    except Exception:
        return reader.reread(value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Order, Order(7)),
        (Plain, Plain(7)),
        (Table, {"order_id": 7}),
        (dict, {"order_id": 7}),
        (dict[str, int], {"order_id": 7}),
    ],
)
@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_every_type_in_every_codec(kind: Any, expected: Any, codec: str) -> None:
    """An event is an instance of the topic's type, from JSON and from MessagePack."""
    value = getattr(msgspec, codec).encode({"order_id": 7})
    found = read(value, kind, codec)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("value", [SESSION, CAMEL])
def test_sessions_in_either_spelling(codec: str, value: bytes) -> None:
    """Sessions may be in camelCase in every format."""
    encoded = getattr(msgspec, codec).encode(msgspec.json.decode(value))
    assert read(encoded, Session, codec).session_id == "1"


def test_bytes_are_not_decoded() -> None:
    """Values of type bytes are the events."""
    value = b"\xff no JSON"
    assert make_reader(BYTES, "json", "none").first(value) is value


@pytest.mark.parametrize("kind", [Session, Order])
@pytest.mark.parametrize(
    "value",
    [
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":%s}',
        b'{"data":%s,"specversion":"1.0","datacontenttype":"application/json; charset=utf-8"}',
        b'{"data":%s,"specversion":"1.0","datacontenttype":"application/vnd.acme+json"}',
        b' {"specversion":"1.0","data_base64":"%s"}',
    ],
)
@pytest.mark.parametrize("framing", ["none", "confluent"])
def test_structured_cloudevents(framing: str, value: bytes, kind: Any) -> None:
    """The event is what stands under data, or as JSON in data_base64."""
    data = CAMEL if kind is Session else b'{"order_id":7}'
    wrapped = value % (base64.b64encode(data) if b"base64" in value else data)
    found = read((b"\0\0\0\0\7" if framing == "confluent" else b"") + wrapped, kind, "cloudevents", framing)
    assert (found.session_id if kind is Session else found.order_id) in ("1", 7)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b'[{"specversion":"1.0","data":{}}]', "it is a batch of CloudEvents"),
        (b'  [ {"specversion":"1.0"} ]', "it is a batch of CloudEvents"),
        (b'{"order_id":7}', "it is not a CloudEvent in structured mode"),
        (b'{"specversion":"1.0"}', "it is a CloudEvent without data"),
        (b'{"specversion":"1.0","data_base64":null}', "it is a CloudEvent without data"),
        (b'{"specversion":"1.0","data":{},"data_base64":"e30="}', "both data and data_base64"),
        (b'{"specversion":"1.0","data_base64":"%"}', "its data_base64 is not base64"),
        (b'{"specversion":"1.0","data":"<a/>","datacontenttype":"text/xml"}', "its datacontenttype is not JSON"),
    ],
)
def test_wrong_cloudevents(value: bytes, why: str) -> None:
    """What is wrong with a CloudEvent is said in our own words."""
    with pytest.raises(FormatError, match=why):
        read(value, Order, "cloudevents")


@pytest.mark.parametrize(
    "value",
    [
        b'{"specversion":"1.0","data":{"order_id":7,"total":1},"data_base64":null,"datacontenttype":null}',
        b'{"specversion":"1.0","data":null,"data_base64":"eyJvcmRlcl9pZCI6NywidG90YWwiOjF9"}',
    ],
)
def test_null_members_of_a_cloudevent(value: bytes) -> None:
    """A member that is null is absent, as libraries that write every field do."""
    assert read(value, Order, "cloudevents").order_id == 7


@pytest.mark.parametrize("value", [b"\0\0\0\0\7" + SESSION, SESSION, b"\0\0\0\0\7" + CAMEL])
def test_framed_json(value: bytes) -> None:
    """A schema id before the document is passed over; a producer that names it in a header writes none."""
    assert read(value, Session, framing="confluent").session_id == "1"


@pytest.mark.parametrize("value", [b"\0", b"\0\0\0\0\7"])
def test_a_frame_without_a_document(value: bytes) -> None:
    """A schema id alone is no event."""
    with pytest.raises(FormatError, match="no document behind it"):
        read(value, Session, framing="confluent")


def test_framed_json_without_framing_is_refused() -> None:
    """Without the setting a framed value is undecodable: nothing is guessed."""
    with pytest.raises(msgspec.DecodeError):
        read(b"\0\0\0\0\7" + SESSION, Session)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_a_union(codec: str) -> None:
    """The tag of a record chooses its class."""
    encode = getattr(msgspec, codec).encode
    assert read(encode({"kind": "placed", "order_id": 1}), Placed | Paid, codec) == Placed(1)
    assert read(encode({"order_id": 1, "kind": "paid", "amount": 2.5}), Placed | Paid, codec) == Paid(1, 2.5)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_an_unknown_tag(codec: str) -> None:
    """A tag of no class has a reason of its own, or is kept with the record's bytes for a route that asks."""
    value = getattr(msgspec, codec).encode({"kind": "lost", "order_id": 1})
    with pytest.raises(FormatError, match="a tag that no type of the topic has in the field kind"):
        read(value, Placed | Paid, codec)
    kept = read(value, Placed | Paid, codec, keep_unknown=True)
    assert (kept, type(kept)) == (value, UnknownTag)


@pytest.mark.parametrize("keep_unknown", [True, False])
def test_a_missing_tag(keep_unknown: bool) -> None:
    """A record without a tag is undecodable, also where unknown tags are kept."""
    with pytest.raises(FormatError, match="has no tag in the field kind"):
        read(b'{"order_id":1}', Placed | Paid, keep_unknown=keep_unknown)


def test_a_known_tag_with_wrong_fields() -> None:
    """Other errors of a union stay msgspec's."""
    with pytest.raises(msgspec.ValidationError, match="amount"):
        read(b'{"kind":"paid","order_id":1}', Placed | Paid)


def test_a_union_of_numbered_tags() -> None:
    """Tags may be numbers."""
    one, two = msgspec.defstruct("One", [("a", int)], tag=1), msgspec.defstruct("Two", [("a", int)], tag=2)
    assert type(read(b'{"type":2,"a":3}', one | two)) is two
    with pytest.raises(FormatError, match="a tag that no type"):
        read(b'{"type":3,"a":3}', one | two)
