"""Tracing end to end: a producer's span on Kafka, a daemon, and a collector."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.cluster import Cluster, a_route, a_session, eventually
from tests.endpoint import an_endpoint
from tests.kafka.recorded import RECORDER
from tests.process import RunningConsumer, command

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@asynccontextmanager
async def a_collector() -> AsyncIterator[tuple[str, list[Span]]]:
    """Run an OTLP collector over HTTP; yield its address and the spans that it gets."""
    got: list[Span] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            got.extend(span for scope in resource.scope_spans for span in scope.spans)
        return web.Response()

    async with an_endpoint("/v1/traces", take) as address:
        yield address, got


async def test_a_producers_trace_goes_on(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's span reaches the collector before the daemon ends, and links the producer's span."""
    await cluster.create()
    async with a_collector() as (address, got), cluster.producer() as producer:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        headers = [("traceparent", PARENT.encode())]
        await producer.send_and_wait(cluster.topic, a_session(0), partition=0, headers=headers)
        await producer.send_and_wait(cluster.topic, a_session(1), partition=0)
        async with cluster.run("tracing.enabled=true", routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
            await eventually(lambda: is_handled(daemon, 2))
            assert await daemon.stop() == 0
    assert [span.name for span in got] == [f"process {cluster.topic}"] * 2
    (link,) = got[0].links
    assert f"{link.trace_id.hex()}-{link.span_id.hex()}" in PARENT
    assert not got[1].links


async def test_a_collector_that_is_away_holds_up_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a collector records are handled and the daemon ends cleanly."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    await cluster.create()
    await cluster.produce([a_session(0)])
    async with cluster.run("tracing.enabled=true", routes=a_route(RECORDER, path=tmp_path / "handled")) as daemon:
        await eventually(lambda: is_handled(daemon, 1))
        assert await daemon.stop() == 0


async def test_the_extra_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    """Without the extra the daemon names what to install, before it connects."""
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError")
    settings = ("--set", "tracing.enabled=true", "--set", f"kafka.bootstrap_servers={cluster.bootstrap_servers}")
    code, _, err = await command("run", *settings, PYTHONPATH=str(hidden.parent))
    assert code == 2
    assert "install session-consumer with the extra `otel`" in err


async def is_handled(daemon: RunningConsumer, count: int) -> bool:
    return await daemon.metric("outcomes_total", route="all", outcome="handled") == count
