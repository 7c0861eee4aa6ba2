"""Spans of handlers' calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from consumer.record import Record
from consumer.routes.calling import InThread
from consumer.routes.handler import Handler, bind_handler
from consumer.routes.route import Route
from consumer.settings.sections import Kafka
from consumer.tracing import Tracing

PHONE = "+4915112345678"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VALUE = b'{"source":"%b"}' % PHONE.encode()
A_RECORD = Record("t", 3, 7, 1, PHONE.encode(), VALUE, (("traceparent", PARENT.encode()),))


class Spans:
    """A tracer of handlers that keeps its spans."""

    def __init__(self) -> None:
        self.kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.tracing = Tracing(provider, Kafka(group_id="g", client_id="c"))

    def of(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        traced = self.tracing.traced(Route("r", None, bind_handler(handler, "test"))).handler
        assert traced.wants_record
        return traced.call

    @property
    def one(self) -> ReadableSpan:
        (span,) = self.kept.get_finished_spans()
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


def test_a_plain_call(spans: Spans) -> None:
    """A call is a consumer span with conventional names, linked to the span that produced its record."""
    seen = []

    def handle(event: str) -> None:
        seen.append((event, trace.get_current_span().get_span_context().span_id))

    spans.of(handle)("event", A_RECORD)
    span = spans.one
    assert seen == [("event", span.context.span_id)]
    assert (span.name, span.kind, span.status.status_code) == ("process t", SpanKind.CONSUMER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "g",
        "messaging.client.id": "c",
        "messaging.destination.name": "t",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "messaging.message.body.size": len(VALUE),
        "session_consumer.route": "r",
    }
    (link,) = span.links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" in PARENT


async def test_an_async_call(spans: Spans) -> None:
    """A span lasts as long as its call and contains what the call starts, whatever else runs."""
    inside: dict[str, int] = {}

    async def handle(event: str, record: Record) -> None:
        assert record is A_RECORD
        await asyncio.sleep(0)
        inside[event] = trace.get_current_span().get_span_context().span_id

    call = spans.of(handle)
    await asyncio.gather(call("a", A_RECORD), call("b", A_RECORD))
    assert {span.context.span_id for span in spans.kept.get_finished_spans()} == set(inside.values())
    assert len(inside) == 2


def test_a_batch(spans: Spans) -> None:
    """A batch is one span that is linked to all its producers' spans."""

    def handle(events: list[str]) -> None:
        assert events == ["a", "b", "c"]

    unlinked = Record("t", 3, 8, 1, None, b"{}", ())
    spans.of(handle)(["a", "b", "c"], [A_RECORD, unlinked, A_RECORD])
    assert (spans.one.attributes or {})["messaging.batch.message_count"] == 3
    assert "messaging.kafka.offset" not in (spans.one.attributes or {})
    assert len(spans.one.links) == 2


async def test_a_function_that_returns_something_to_await(spans: Spans) -> None:
    """A wrapper around a coroutine function has one span, until the coroutine ends."""

    async def later() -> None:
        await asyncio.sleep(0)
        raise KeyError(PHONE)

    rest = spans.of(lambda _event: later())("event", A_RECORD)
    assert not spans.kept.get_finished_spans()
    with pytest.raises(KeyError):
        await rest
    assert (spans.one.attributes or {})["error.type"] == "KeyError"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_failure_shows_its_class_only(spans: Spans, is_async: bool) -> None:
    """A failed call's span is an error without the exception's text, key, value or headers."""

    def fail(_event: Any, _record: Record) -> None:
        raise ValueError(f"cannot call {PHONE}")

    async def fail_async(event: Any, record: Record) -> None:
        fail(event, record)

    call = spans.of(fail_async if is_async else fail)
    with pytest.raises(ValueError, match="cannot call"):
        await asyncio.ensure_future(call("event", A_RECORD)) if is_async else call("event", A_RECORD)
    span = spans.one
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert PHONE not in span.to_json()
    assert not span.events


async def test_a_threaded_call_is_within_its_span(spans: Spans) -> None:
    """Spans of a blocking function belong to its call."""
    seen = []

    def handle(_event: str) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    route = Route("r", None, Handler(InThread(handle, 1), is_async=True, wants_record=False))
    await spans.tracing.traced(route).handler.call("event", A_RECORD)
    assert seen == [spans.one.context.span_id]


def test_tracestate_is_not_exported(spans: Spans) -> None:
    """A producer's ``tracestate`` is free text, so it is not exported."""
    headers = (("traceparent", PARENT.encode()), ("tracestate", b"caller=%b" % PHONE[1:].encode()))
    spans.of(lambda _event: None)("event", Record("t", 0, 1, 1, None, b"", headers))
    assert len(spans.one.links) == 1
    assert PHONE[1:] not in spans.one.to_json()


@pytest.mark.parametrize("header", [b"", b"\xff\xfe", b"00-zz", PARENT.encode() + b"\n" + PHONE.encode()])
def test_a_context_that_cannot_be_read_is_no_link(spans: Spans, header: bytes) -> None:
    """With an unreadable trace context the call runs without a link."""
    spans.of(lambda _event: None)("event", Record("t", 0, 1, 1, None, None, (("traceparent", header),)))
    assert not spans.one.links
    assert PHONE not in spans.one.to_json()


def test_without_tracing_opentelemetry_is_not_imported() -> None:
    """The daemon and the command line import OpenTelemetry only when tracing is enabled."""
    program = (
        "import sys, consumer.cli.main, consumer.cli.run, consumer.process.parts;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert told == "[]\n"
