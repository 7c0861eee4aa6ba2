"""The wire: every sample decodes or is refused, in both spellings, with types as strict as the contract says."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.session import Session
from schemas.wire import ConflictingSpellingsError, TwoSpellings, camel_case, session_reader

SAMPLES = Path(__file__).parent.parent.parent / "samples"
VALID = [line for line in (SAMPLES / "valid.jsonl").read_bytes().split(b"\n") if line]
INVALID = [json.loads(line) for line in (SAMPLES / "invalid.jsonl").read_bytes().split(b"\n") if line]

FULL: dict[str, Any] = {
    "timestamp": "2026-08-21T14:08:00Z",
    "session_id": "831",
    "conversation_id": "611",
    "channel_manager_service": "hedy",
    "channel_manager_type": "voice_sip_v1",
    "channel_manager_sid": "CA0123456789abcdef0123456789abcdef",
    "source": "+18042221111",
    "target": "+19995551234",
    "is_legacy": False,
    "is_test": True,
    "agent_id": "12",
    "agent_name": "Front desk",
    "agent_type": "ca_v1",
    "agent_timezone": "America/New_York",
    "prompt_id": "7",
    "prompt_name": "Main",
    "prompt_version": "v4",
    "prompt_version_number": 4,
    "duration": 93.5,
    "session_label_id": "3",
    "is_outbound": False,
    "user_terminated": True,
    "transfer_voicemail_detected": False,
    "override_timestamp": "2026-08-21T09:00:00",
    "experiment_id": "e",
    "experiment_variant_id": "v",
    "experiment_variant": "b",
    "experiment_variant_is_control": False,
}


def document(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def test_the_samples_are_there() -> None:
    """The contract's samples are all read: eleven that decode, twenty-one that must not."""
    assert (len(VALID), len(INVALID)) == (11, 21)


@pytest.mark.parametrize("line", VALID, ids=range(len(VALID)))
def test_valid_sample(line: bytes) -> None:
    """Each valid line decodes to a Session whose timestamp is aware and whose named fields are kept."""
    event = session_reader()(line)
    assert type(event) is Session
    assert event.timestamp.tzinfo is not None
    for name, value in json.loads(line).items():
        field = next((f for f in Session.__struct_fields__ if name in (f, camel_case(f))), None)
        if field not in (None, "timestamp"):
            assert getattr(event, field) == value


@pytest.mark.parametrize("sample", INVALID, ids=[sample["why"] for sample in INVALID])
def test_invalid_sample(sample: dict[str, str]) -> None:
    """Each invalid value is refused, and the same reader goes on to read a good record."""
    read = session_reader()
    with pytest.raises((ValueError, RecursionError, msgspec.MsgspecError)):
        read(sample["value"].encode("utf-8", "surrogatepass"))
    assert read(VALID[0]).session_id == "824"


def test_both_spellings_give_the_same_event() -> None:
    """A camelCase record equals its snake_case twin in every field; none is lost to a null."""
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
    """A camelCase name is recognised also when its letters are written as JSON escapes."""
    value = b'{"timestamp":"2024-10-21T14:05:00Z","session\\u0049d":"1"}'
    assert session_reader()(value).session_id == "1"


@pytest.mark.parametrize("number", ["session_id", "is_test"])
def test_different_values_in_two_spellings_are_refused(number: str) -> None:
    """Both spellings with different values are an error, and a null beside a value is not a difference."""
    read = session_reader()
    other: Any = False if FULL[number] is True else "other"
    with pytest.raises(ConflictingSpellingsError, match=number):
        read(document({**FULL, camel_case(number): other}))
    assert read(document({**FULL, camel_case(number): None})) == read(document(FULL))
    assert read(document({**FULL, number: None, camel_case(number): FULL[number]})) == read(document(FULL))


def test_one_is_not_true_in_the_other_spelling() -> None:
    """Types are strict in the second spelling too, also when Python would call the values equal."""
    with pytest.raises(msgspec.ValidationError):
        session_reader()(document({**FULL, "isTest": 1}))


def test_unknown_fields_are_ignored_for_ever() -> None:
    """A field that nobody knows is ignored, in thousands of records in a row and in the usual one after them."""
    reader = TwoSpellings(Session)
    unknown = document({**FULL, "some_future_field": {"nested": [1, 2, 3]}})
    expected = reader.read(document(FULL))
    assert all(reader.read(unknown) == expected for _ in range(3000))
    assert reader.read(document(FULL)) == expected
    assert reader.read(document({"timestamp": FULL["timestamp"], "sessionId": "9"})).session_id == "9"


def test_timestamp_keeps_its_instant() -> None:
    """An offset of any legal form is kept as an instant."""
    event = session_reader()(document({"timestamp": "2024-10-21T14:05:00.5+0530"}))
    zone = timezone(timedelta(hours=5, minutes=30))
    assert event.timestamp.astimezone(UTC) == datetime(2024, 10, 21, 14, 5, 0, 500_000, zone)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_event_or_a_known_error(value: bytes) -> None:
    """No bytes make the reader raise anything but its stated errors."""
    with contextlib.suppress(ValueError, RecursionError, msgspec.MsgspecError):
        session_reader()(value)
