"""Any bytes from Kafka and any settings: no unexpected exception."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer import Record
from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import read_context, split_headers
from consumer.dead_letters.letter import Writer
from consumer.delivery.decoding import Decoder
from consumer.errors import DecodeError, SettingsError
from consumer.outcome import Outcome
from consumer.settings.sections import DeadLetterSettings
from consumer.settings.sources import load_settings
from schemas.session import Session
from schemas.wire import AdaptiveReader
from tests.unit.delivery.engines import QUICK, a_route, an_engine_on
from tests.unit.delivery.handlers import Letters
from tests.unit.delivery.log_source import LogSource
from tests.unit.delivery.source import KEY, RawRecord

FIELDS = ["timestamp", "session_id", "sessionId", "duration", "is_test", "isTest", "source", "toolCalls", "tags"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.just("2024-10-21T14:05:00Z"),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), DOCUMENTS, max_size=8)


def spoiled(draw: st.DrawFn, document: bytes) -> bytes:  # noqa: PLR0911 - one return a way to spoil it
    """Cut, flip, repeat or prefix a document."""
    match draw(st.integers(0, 6)):
        case 0:
            return document[: draw(st.integers(0, len(document)))]
        case 1 if document:
            at = draw(st.integers(0, len(document) - 1))
            return document[:at] + bytes([document[at] ^ draw(st.integers(1, 255))]) + document[at + 1 :]
        case 2:
            return b"\xef\xbb\xbf" + document
        case 3:
            return document.decode(errors="replace").encode("utf-16")
        case 4:
            return document + document
        case 5:
            return b"[" * draw(st.integers(1, 100_000))
    return document


@st.composite
def values(draw: st.DrawFn) -> bytes | None:
    """Draw values of records: events, nearly events, any bytes, and none."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return None
    if kind == 1:
        return draw(st.binary(max_size=50))
    event: dict[str, Any] = draw(EVENTS)
    if draw(st.booleans()):
        event["timestamp"] = "2024-10-21T14:05:00Z"
    return spoiled(draw, json.dumps(event).encode())


RECORDS = st.lists(
    st.builds(
        RawRecord,
        offset=st.just(0),
        value=values(),
        key=st.none() | st.binary(max_size=5),
        timestamp=st.sampled_from([-1, 0, 1, 2**63 - 1]) | st.integers(-1, 2**62),
        headers=st.lists(st.tuples(st.text(max_size=30), st.none() | st.binary(max_size=5)), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


@given(values())
@settings(max_examples=300, deadline=None)
def test_a_value_is_an_event_or_a_decode_error(value: bytes | None) -> None:
    """Decoding gives an event or raises DecodeError, which shows nothing of the value."""
    if value is None:
        return
    reader = AdaptiveReader(Session)
    refused: DecodeError | None = None
    try:
        assert isinstance(Decoder(reader, 10_000).decode(value), Session)
    except DecodeError as error:
        refused = error
    assert refused is None or (refused.reason in ("undecodable", "too_large") and len(str(refused)) < 200)


@given(RECORDS, st.sampled_from(["partition", "key", "unordered"]))
@settings(max_examples=60, deadline=None)
def test_every_record_has_one_outcome(records: list[RawRecord], ordering: str) -> None:
    """Any record is handled, skipped or dead-lettered once; all is committed, and nothing fails."""
    placed = [record._replace(offset=offset * 2) for offset, record in enumerate(records)]
    handled: list[int] = []

    async def run() -> None:
        source = LogSource(placed)
        letters = Letters(source.done)
        source.done |= {record.offset for record in placed if record.value is None}
        reader = AdaptiveReader(Session)

        def handle(_event: Session, record: Record) -> None:
            handled.append(record.offset)
            source.done.add(record.offset)

        decoder = Decoder(reader, 10_000)
        async with an_engine_on(
            source, a_route(handle), decoder=decoder, retry=QUICK, letters=letters, ordering=ordering
        ) as bench:
            bench.engine.assign([KEY])
            async with asyncio.timeout(10):
                while source.committed != source.end:
                    await asyncio.sleep(0)
            outcomes = bench.counters.outcomes
            assert (bench.failures, source.ahead) == ([], [])
        dead = [offset for offset, _ in letters.written]
        null = [record.offset for record in placed if record.value is None]
        assert sorted([*handled, *dead, *null]) == [record.offset for record in placed]
        assert outcomes["none", Outcome.SKIPPED] == len(null)
        assert outcomes["none", Outcome.DEAD_LETTERED] == len(dead)

    asyncio.run(run())


@given(RECORDS, st.sampled_from(["connect", "spring"]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_letter_gives_back_its_record_and_origin(records: list[RawRecord], dialect: Any, of_letters: bool) -> None:
    """Any record becomes a letter that gives back its headers and origin; reading any headers raises nothing."""
    writer = Writer(DeadLetterSettings(headers=dialect), "group", of_letters)
    for record in records:
        read_context(record.headers)
        letter = writer.letter(KEY, record, Cause("rejected", "r0", 1, "ä.Ö", "message\n"))
        context = read_context(letter.headers)
        assert context is not None
        assert (letter.key, letter.value) == (record.key, record.value)
        if read_context(record.headers) is None:
            assert context.origin == (*KEY, record.offset)
            assert tuple(split_headers(letter.headers)[0]) == record.headers


NAMES = st.sampled_from(
    ["kafka.topics", "kafka.fetch_bytes", "delivery.ordering", "retry.attempts", "retry.jitter", "dead_letter.topic"]
) | st.text(max_size=15)


@given(st.lists(st.tuples(NAMES, st.text(max_size=20)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_settings_are_settings_or_a_settings_error(overrides: list[tuple[str, str]]) -> None:
    """Any ``--set`` and any variable gives settings or a SettingsError."""
    words = [f"{name}={text}" for name, text in overrides]
    environment = {f"SESSION_CONSUMER_{name.upper().replace('.', '__')}": text for name, text in overrides}
    for given_environment, given_words in (({}, words), (environment, [])):
        with contextlib.suppress(SettingsError):
            load_settings(None, given_environment, given_words)
