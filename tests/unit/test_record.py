"""Records: the attributes of CloudEvents, whichever way they came."""

from __future__ import annotations

import pytest

from consumer import Record

BINARY = (("ce_specversion", b"1.0"), ("ce_type", b"order.paid"), ("content-type", b"application/json"), ("x", b"1"))
STRUCTURED = b'{"specversion":"1.0","type":"order.paid","sequence":7,"data":{"type":"inner"}}'


def attributes(value: bytes | None, headers: tuple[tuple[str, bytes | None], ...] = ()) -> dict[str, str]:
    return Record("t", 0, 0, 0, None, value, headers).attributes


def test_binary_mode() -> None:
    """In binary mode attributes are headers, and the content type is that of the data."""
    found = attributes(b'{"specversion":"0"}', BINARY)
    assert found == {"specversion": "1.0", "type": "order.paid", "datacontenttype": "application/json"}


@pytest.mark.parametrize("before", [b"", b" ", b"\0\0\0\0\7", b"\0\0\0\0{", b"\0{\0\0\0 "])
def test_structured_mode(before: bytes) -> None:
    """In structured mode attributes stand beside the data, also behind a schema id; the data is none of them."""
    found = attributes(before + STRUCTURED, (("content-type", b"application/cloudevents+json"),))
    assert found == {"specversion": "1.0", "type": "order.paid", "sequence": "7"}


def test_unset_attributes() -> None:
    """An attribute that is null is unset: the record does not have it."""
    found = attributes(b'{"specversion":"1.0","subject":null,"sampled":false,"data":null}')
    assert found == {"specversion": "1.0", "sampled": "false"}
    assert attributes(b'{"specversion":null,"type":"order.paid"}') == {}


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff{", b'{"a":1}', b"{" * 100_000, b'{"specversion":}'])
def test_no_cloudevent(value: bytes | None) -> None:
    """A record that is no CloudEvent has no attributes, whatever its bytes are."""
    assert attributes(value, (("ce_type", None), ("content-type", b"text/plain"))) == {}
