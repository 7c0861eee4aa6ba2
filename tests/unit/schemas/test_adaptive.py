"""The adaptive reader: whatever stream came before, a document is read as by the decoder that knows every form."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import wire
from schemas.session import Session
from schemas.wire import AdaptiveReader, camel_case
from tests.unit.schemas.samples import FULL

NAMES = st.sampled_from(["future", "futureField", "x", "a b", "sessionID", "é", ""])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


def document(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def spelled(unknown: dict[str, Any] | None = None, *, camel: bool = False) -> bytes:
    known = {(camel_case(name) if camel else name): value for name, value in FULL.items()}
    return document(known | (unknown or {}))


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Draw a record: its fields in either spelling, sometimes one of a wrong type, sometimes unknown ones."""
    camel = draw(st.just(set()) | st.just(set(FULL)) | st.sets(st.sampled_from(sorted(FULL)), max_size=4))
    fields: dict[str, Any] = {(camel_case(name) if name in camel else name): value for name, value in FULL.items()}
    if draw(st.integers(0, 5)) == 0:
        fields[draw(st.sampled_from(sorted(fields)))] = draw(SCALARS)
    return document(fields | draw(st.dictionaries(NAMES, SCALARS, max_size=2)))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Draw a stream of a few documents that repeat, so that the reader adapts and adapts back."""
    few = draw(st.lists(documents(), min_size=1, max_size=4))
    return [few[number % len(few)] for number in draw(st.lists(st.integers(0, 3), max_size=40))]


def outcome(read: Any, value: bytes) -> Any:
    try:
        return read(value)
    except (ValueError, msgspec.MsgspecError) as error:
        return type(error)


@given(streams())
def test_history_changes_no_event(stream: list[bytes]) -> None:
    """A reader that has adapted to a stream reads each record as one without a history, into the exact Struct."""
    adapted = AdaptiveReader(Session)
    for value in stream:
        found = outcome(adapted.read, value)
        assert found == outcome(AdaptiveReader(Session).read, value)
        assert not isinstance(found, msgspec.Struct) or type(found) is Session


@pytest.mark.parametrize(
    "value",
    [spelled(camel=True), spelled({"new": [1, {}]}), spelled({"new": 1}, camel=True)],
    ids=["camel", "new", "both"],
)
def test_a_steady_stream_is_not_refused(value: bytes) -> None:
    """After a few records of one form, the first decoder fits them."""
    reader = AdaptiveReader(Session)
    for _ in range(wire.STEADY + 1):
        reader.read(value)
    assert reader.first(value) == AdaptiveReader(Session).read(spelled())


def test_a_few_among_many_switch_nothing() -> None:
    """One camelCase record among many in snake_case leaves the first decoder as it is."""
    reader = AdaptiveReader(Session)
    usual = reader.first
    for _ in range(50):
        reader.read(spelled(camel=True))
        reader.read(spelled())
        reader.reread(spelled())
    assert reader.first == usual


def test_learned_names_are_bounded() -> None:
    """A producer that invents a name for each record makes the reader no larger, and the usual record fast again."""
    reader = AdaptiveReader(Session)
    for number in range(5000):
        assert reader.read(spelled({f"name_{number}": 1})).session_id == FULL["session_id"]
    assert len(reader._learned) <= wire.MAX_LEARNED
    for _ in range(wire.MIXED_RECORDS + wire.STEADY):
        reader.read(spelled())
    assert msgspec.json.Decoder(Session).decode(spelled()) == reader.first(spelled())
    with pytest.raises(msgspec.ValidationError):
        reader.first(spelled({"another": 1}))


def test_a_long_name_is_not_learned() -> None:
    """A name of a megabyte is not kept."""
    reader = AdaptiveReader(Session)
    reader.read(spelled({"n" * 1_000_000: 1}))
    assert reader._learned == {}


def test_a_name_that_is_not_utf_8_is_ignored() -> None:
    """An unknown field whose name cannot be decoded is ignored like any other."""
    value = spelled()[:-1] + b',"\xff":1}'
    reader = AdaptiveReader(Session)
    assert [reader.read(value).session_id for _ in range(10)] == [FULL["session_id"]] * 10
