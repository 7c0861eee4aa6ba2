"""The collector: reads counters and partitions at a scrape, and encodes them for Prometheus."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.registry import Collector

from consumer.metrics.definitions import METRICS, PREFIX
from consumer.observe.counters import Counters
from consumer.observe.histogram import Histogram
from consumer.observe.observed import Observed

STATES = ("starting", "running", "rebuilding", "draining")

Samples = Mapping[Any, float]
"""Values by label values, in the order of the metric's labels."""


class DaemonCollector(Collector):
    """Reads one daemon's counters and partitions at each scrape; lives as long as the daemon."""

    def __init__(self, counters: Counters, observed: Observed, max_in_flight_records: int) -> None:
        self._counters = counters
        self._observed = observed
        self._max_in_flight_records = max_in_flight_records
        self._build = (version("session-consumer"), platform.python_version(), version("aiokafka"))

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return a scrape's body and its content type (``exposition``)."""
        return exposition(self, accept)

    def collect(self) -> Iterator[Metric]:
        """Yield every defined metric with its current samples."""
        samples, histograms = self._counter_samples() | self._gauges(), self._histograms()
        for metric in METRICS:
            name = PREFIX + metric.name
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
                for labels, each in histograms[metric.name].items():
                    histogram.add_metric(labels, each.cumulative(), each.total)
                yield histogram
                continue
            family: type[CounterMetricFamily | GaugeMetricFamily] = (
                CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            )
            made = family(name, metric.help, labels=metric.labels)
            for labels, value in samples[metric.name].items():
                made.add_metric(labels, value)
            yield made

    def _counter_samples(self) -> dict[str, Samples]:
        counters = self._counters
        return {
            "records_consumed_total": _by_text(counters.records_consumed),
            "bytes_consumed_total": _by_text(counters.bytes_consumed),
            "outcomes_total": {(route, outcome.value): n for (route, outcome), n in counters.outcomes.items()},
            "decode_errors_total": dict(counters.decode_errors),
            "handler_errors_total": counters.handler_errors,
            "retries_total": {(name,): counts.retries for name, counts in counters.routes.items()},
            "dead_letters_total": dict(counters.dead_letters),
            "abandoned_total": _by_text(counters.abandoned),
            "commits_total": _by_text(counters.commits),
            "rebalances_total": _by_text(counters.rebalances),
            "client_rebuilds_total": _by_text(counters.client_rebuilds),
            "offset_resets_total": dict(counters.offset_resets),
            "loop_seconds_total": _by_text(self._observed.loop_seconds()),
            "inline_seconds_total": {(name,): counts.inline_seconds for name, counts in counters.routes.items()},
        }

    def _histograms(self) -> dict[str, Mapping[tuple[str, ...], Histogram]]:
        counters = self._counters
        return {
            "handler_seconds": {(name,): counts.seconds for name, counts in counters.routes.items()},
            "batch_records": {(name,): counts.batches for name, counts in counters.routes.items()},
            "record_age_seconds": {(topic,): each for topic, each in list(counters.record_age.items())},
            "commit_seconds": {(): counters.commit_seconds},
        }

    def _gauges(self) -> dict[str, Samples]:
        partitions = {(p.key.topic, str(p.key.partition)): p for p in self._observed.partitions}
        now, wall, current = time.monotonic(), time.time(), self._observed.state
        return {
            "lag_records": _known({labels: p.lag_records for labels, p in partitions.items()}),
            "position_lag_records": _known({labels: p.position_lag_records for labels, p in partitions.items()}),
            "lag_seconds": _known({labels: p.lag_seconds(wall) for labels, p in partitions.items()}),
            "end_offset_age_seconds": {
                labels: max(0.0, now - p.lag.measured_at)
                for labels, p in partitions.items()
                if p.lag.end_offset is not None
            },
            "committed_offset": _known({labels: p.known_committed for labels, p in partitions.items()}),
            "in_flight_records": {labels: p.in_flight[0] for labels, p in partitions.items()},
            "in_flight_bytes": {labels: p.in_flight[1] for labels, p in partitions.items()},
            "max_in_flight_records": {(): self._max_in_flight_records},
            "halted": {(*labels, p.halt.reason.value): 1 for labels, p in partitions.items() if p.halt is not None},
            "holding": {labels: float(bool(p.held)) for labels, p in partitions.items()},
            "assigned_partitions": {(): len(partitions)},
            "last_poll_timestamp_seconds": {(): self._counters.last_poll_timestamp},
            "last_commit_timestamp_seconds": {(): self._counters.last_commit_timestamp},
            "state": {(state,): float(state == current) for state in STATES},
            "build_info": {self._build: 1},
        }


def _by_text(counts: Mapping[str, float]) -> Samples:
    return {(label,): count for label, count in list(counts.items())}


def _known(values: Mapping[tuple[str, ...], float | None]) -> Samples:
    return {labels: value for labels, value in values.items() if value is not None}


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Return the body and the content type of a scrape: OpenMetrics if the scraper accepts it, else the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    if isinstance(encode, partial) and encode.keywords.get("escaping") == UNDERSCORES:
        # Our names need no escaping. The library checks each of their letters, which takes half of a scrape's time.
        encode = partial(encode.func, **encode.keywords | {"escaping": ALLOWUTF8})
    body: Any = encode(registry)
    return body, content_type
