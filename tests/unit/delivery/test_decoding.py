"""Decoding: a value that is not an event becomes an error that holds its size and none of its content."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.decoding import Decoder
from consumer.errors import DecodeError
from schemas.formats import Plain
from schemas.session import Session
from schemas.wire import AdaptiveReader, session_reader
from tests.unit.schemas.samples import FULL, INVALID, VALID

MARK = "zqxjkvb"
"""A text that no message of ours would hold by chance."""


def a_decoder(max_record_bytes: int) -> Decoder:
    reader = AdaptiveReader(Session)
    return Decoder(reader, max_record_bytes)


LIMIT = 1_048_576


def refusal(value: bytes, max_record_bytes: int = LIMIT) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        a_decoder(max_record_bytes).decode(value)
    return refused.value


@pytest.mark.parametrize("value", VALID, ids=range(len(VALID)))
def test_an_event_passes_unchanged(value: bytes) -> None:
    """The decoder returns what the reader makes of a value."""
    assert a_decoder(LIMIT).decode(value) == session_reader()(value)


@pytest.mark.parametrize("sample", INVALID, ids=[sample["why"] for sample in INVALID])
def test_a_value_that_is_not_an_event_is_undecodable(sample: dict[str, str]) -> None:
    """Every value that is not an event is undecodable, and the error holds its size."""
    value = sample["value"].encode("utf-8", "surrogatepass")
    error = refusal(value)
    assert error.reason == "undecodable"
    assert f"{len(value)} bytes" in str(error)


def test_deep_nesting_is_undecodable() -> None:
    """A document too deep for the reader is undecodable like any other, and does not crash the process."""
    assert refusal(b'{"timestamp":' + b"[" * 100_000).reason == "undecodable"


def test_too_large_is_found_before_reading() -> None:
    """A value over the limit never reaches the reader; one at the limit does."""
    read: list[bytes] = []
    decode = Decoder(Plain(read.append), max_record_bytes=10).decode
    decode(b"x" * 10)
    with pytest.raises(DecodeError) as refused:
        decode(b"x" * 11)
    assert read == [b"x" * 10]
    assert refused.value.reason == "too_large"
    assert "11 bytes is over delivery.max_record_bytes = 10" in str(refused.value)


@pytest.mark.parametrize("error", [ValueError(MARK), RecursionError(MARK), KeyError(MARK), MemoryError(MARK)])
def test_whatever_a_reader_raises_is_undecodable(error: Exception) -> None:
    """Any exception of a reader becomes a DecodeError that names only the exception's class."""

    def read(_: bytes) -> Any:
        raise error

    with pytest.raises(DecodeError) as refused:
        Decoder(Plain(read), LIMIT).decode(b"x")
    assert refused.value.reason == "undecodable"
    assert type(error).__name__ in str(refused.value)
    assert MARK not in everything_shown(refused.value)


def everything_shown(error: DecodeError) -> str:
    """Return all that a log or a traceback would show of an error."""
    return f"{error} {error!r} {error.reason} {''.join(traceback.format_exception(error))}"


marked = st.text(max_size=5).map(lambda text: f"{MARK}{text}")
wrong_fields = st.dictionaries(
    st.sampled_from([*FULL, "sessionId", "isTest"]) | marked,
    marked | st.lists(marked, max_size=2) | st.dictionaries(marked, marked, max_size=2),
    min_size=1,
    max_size=4,
)
wrong_values = (
    wrong_fields.map(lambda fields: json.dumps({**fields, "timestamp": MARK}).encode())
    | marked.map(lambda text: json.dumps(text).encode())
    | marked.map(str.encode)
    | st.tuples(st.binary(max_size=10), st.binary(max_size=10)).map(MARK.encode().join)
)


@given(wrong_values, st.sampled_from([5, LIMIT]))
def test_an_error_shows_nothing_of_its_value(value: bytes, max_record_bytes: int) -> None:
    """Neither message nor traceback shows any of a refused value, which may hold personal data."""
    error = refusal(value, max_record_bytes)
    assert error.reason == ("too_large" if len(value) > max_record_bytes else "undecodable")
    assert MARK not in everything_shown(error)
