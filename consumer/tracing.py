"""OpenTelemetry tracing: one span a handler call, linked to the producers' spans.

Needs the extra ``otel``, and is imported only when ``tracing.enabled`` is set. Names are those of OpenTelemetry's
semantic conventions for messaging. The standard variables configure the exporter, the sampler and the service's name:
``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME``. A span holds no key, value or header of
a record, and only the class of an exception.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from consumer.record import Record
from consumer.routes.route import Route
from consumer.settings.sections import Kafka

SHUTDOWN_SECONDS = 3.0
PARENT = "traceparent"


def open_provider() -> TracerProvider:
    """Make a provider that sends spans to a collector by OTLP over HTTP, from a separate thread."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - half a second

    own = Resource({SERVICE_NAME: "session-consumer"})
    provider = TracerProvider(resource=own.merge(Resource.create()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Wraps routes so that each handler call is a span; made by a command, ended with ``close``."""

    def __init__(self, provider: TracerProvider, kafka: Kafka) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("session-consumer")
        self._propagator = TraceContextTextMapPropagator()
        self._common = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": kafka.group_id,
            "messaging.client.id": kafka.client_id,
        }

    def close(self) -> None:
        """Send the remaining spans for at most SHUTDOWN_SECONDS: an unreachable collector must not delay a stop."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(SHUTDOWN_SECONDS)

    def traced(self, route: Route) -> Route:
        """Return the route with a handler whose calls are spans. It takes Records, because it needs their headers."""
        handler = route.handler

        def begin(given: Any) -> Span:
            return self._begin(route.name, given if handler.takes_batches else [given], batch=handler.takes_batches)

        def own(event: Any, given: Any) -> Any:
            return handler.call(event, given) if handler.wants_record else handler.call(event)

        def call(event: Any, given: Any) -> Any:
            span = begin(given)
            try:
                with _current(span):
                    result = own(event, given)
            except BaseException as error:
                _fail(span, error)
                raise
            if inspect.isawaitable(result):
                return _finished(span, result)
            span.end()
            return result

        async def call_async(event: Any, given: Any) -> Any:
            rest = call(event, given)
            return await rest if inspect.isawaitable(rest) else rest

        traced = call_async if handler.is_async else call
        return msgspec.structs.replace(route, handler=msgspec.structs.replace(handler, call=traced, wants_record=True))

    def _begin(self, route: str, records: Sequence[Record], *, batch: bool) -> Span:
        first = records[0]
        attributes: dict[str, Any] = {
            **self._common,
            "messaging.destination.name": first.topic,
            "messaging.destination.partition.id": str(first.partition),
            "session_consumer.route": route,
        }
        if batch:
            attributes["messaging.batch.message_count"] = len(records)
        else:
            attributes["messaging.kafka.offset"] = first.offset
            if first.value is None:
                attributes["messaging.kafka.message.tombstone"] = True
            else:
                attributes["messaging.message.body.size"] = len(first.value)
        return self._tracer.start_span(
            f"process {first.topic}",
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[link for record in records if (link := self._link(record)) is not None],
        )

    def _link(self, record: Record) -> Link | None:
        """Find the producer's span in a record's headers; None when there is none that can be read.

        ``tracestate`` is ignored: it is free text of the producer, and a link would forward it.
        """
        carrier = {key: value.decode("ascii", "replace") for key, value in record.headers if key == PARENT and value}
        if not carrier:
            return None
        found = trace.get_current_span(self._propagator.extract(carrier)).get_span_context()
        return Link(found) if found.is_valid else None


def _current(span: Span) -> Any:
    return trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)


async def _finished(span: Span, rest: Awaitable[Any]) -> Any:
    try:
        with _current(span):
            result = await rest
    except BaseException as error:
        _fail(span, error)
        raise
    span.end()
    return result


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."))
    span.set_status(StatusCode.ERROR)
    span.end()
