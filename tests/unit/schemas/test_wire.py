"""The wire format: samples decode or are refused, in both spellings, with strict types."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.session import Session
from schemas.wire import AdaptiveReader, ConflictingSpellingsError, camel_case, session_reader
from tests.unit.schemas.samples import FULL, INVALID, VALID


def document(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def test_the_samples_are_there() -> None:
    """The contract's samples are eleven valid and twenty-one invalid ones."""
    assert (len(VALID), len(INVALID)) == (11, 21)


@pytest.mark.parametrize("line", VALID, ids=range(len(VALID)))
def test_valid_sample(line: bytes) -> None:
    """Each valid line decodes to a Session with an aware timestamp and all its fields."""
    event = session_reader()(line)
    assert type(event) is Session
    assert event.timestamp.tzinfo is not None
    for name, value in json.loads(line).items():
        field = next((f for f in Session.__struct_fields__ if name in (f, camel_case(f))), None)
        if field not in (None, "timestamp"):
            assert getattr(event, field) == value


@pytest.mark.parametrize("sample", INVALID, ids=[sample["why"] for sample in INVALID])
def test_invalid_sample(sample: dict[str, str]) -> None:
    """Each invalid value is refused, and the same reader then reads a good record."""
    read = session_reader()
    with pytest.raises((ValueError, RecursionError, msgspec.MsgspecError)):
        read(sample["value"].encode("utf-8", "surrogatepass"))
    assert read(VALID[0]).session_id == "824"


def test_both_spellings_give_the_same_event() -> None:
    """A camelCase record equals its snake_case form in every field."""
    snake = session_reader()(document(FULL))
    camel = session_reader()(document({camel_case(name): value for name, value in FULL.items()}))
    assert camel == snake
    assert None not in msgspec.structs.astuple(camel)


@given(st.sets(st.sampled_from(sorted(set(FULL) - {"timestamp"}))))
def test_spellings_mix_field_by_field(camel: set[str]) -> None:
    """Any subset of fields may be camelCase in one record."""
    fields = {camel_case(name) if name in camel else name: value for name, value in FULL.items()}
    assert session_reader()(document(fields)) == session_reader()(document(FULL))


def test_escaped_camel_case_name_is_noticed() -> None:
    """A camelCase name is recognised also when written with JSON escapes."""
    value = b'{"timestamp":"2024-10-21T14:05:00Z","session\\u0049d":"1"}'
    assert session_reader()(value).session_id == "1"


@pytest.mark.parametrize("number", ["session_id", "is_test"])
def test_different_values_in_two_spellings_are_refused(number: str) -> None:
    """Different values in both spellings are an error; a null beside a value is not."""
    read = session_reader()
    other: Any = False if FULL[number] is True else "other"
    with pytest.raises(ConflictingSpellingsError, match=number):
        read(document({**FULL, camel_case(number): other}))
    assert read(document({**FULL, camel_case(number): None})) == read(document(FULL))
    assert read(document({**FULL, number: None, camel_case(number): FULL[number]})) == read(document(FULL))


def test_one_is_not_true_in_the_other_spelling() -> None:
    """Types are strict in the second spelling too, also where Python calls the values equal."""
    with pytest.raises(msgspec.ValidationError):
        session_reader()(document({**FULL, "isTest": 1}))


def test_unknown_fields_are_ignored_for_ever() -> None:
    """Unknown fields are ignored in thousands of records, and the next usual record decodes."""
    reader = AdaptiveReader(Session)
    unknown = document({**FULL, "some_future_field": {"nested": [1, 2, 3]}})
    expected = reader.read(document(FULL))
    assert all(reader.read(unknown) == expected for _ in range(3000))
    assert reader.read(document(FULL)) == expected
    assert reader.read(document({"timestamp": FULL["timestamp"], "sessionId": "9"})).session_id == "9"


def test_timestamp_keeps_its_instant() -> None:
    """A timestamp with any legal offset keeps its instant."""
    event = session_reader()(document({"timestamp": "2024-10-21T14:05:00.5+0530"}))
    zone = timezone(timedelta(hours=5, minutes=30))
    assert event.timestamp.astimezone(UTC) == datetime(2024, 10, 21, 14, 5, 0, 500_000, zone)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_event_or_a_known_error(value: bytes) -> None:
    """Any bytes give an event or one of the reader's stated errors."""
    with contextlib.suppress(ValueError, RecursionError, msgspec.MsgspecError):
        session_reader()(value)
