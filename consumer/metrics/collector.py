"""The collector: reads counters at a scrape."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer.metrics.definitions import METRICS, PARTITION_GAUGES, PREFIX
from consumer.metrics.exposition import exposition
from consumer.observe.counters import Counters
from consumer.observe.histogram import Histogram
from consumer.observe.members import epochs_behind
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
        """Return the body and the content type of a scrape: OpenMetrics if it is accepted, else the text format."""
        return exposition(self, self._observed.partitions, accept)

    def collect(self) -> Iterator[Metric]:
        """Yield every defined metric with its current samples, but for the gauges of partitions (``exposition.py``)."""
        samples, histograms = self._counter_samples() | self._gauges(), self._histograms()
        for metric in METRICS:
            if metric in PARTITION_GAUGES:
                continue
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
            "partition_move_seconds": {(phase,): each for phase, each in counters.moves.items()},
        }

    def _gauges(self) -> dict[str, Samples]:
        current, member, group = self._observed.state, self._observed.membership, self._observed.group
        age = time.monotonic() - member.answered_at
        return {
            "max_in_flight_records": {(): self._max_in_flight_records},
            "assigned_partitions": {(): len(self._observed.partitions)},
            "revoking_partitions": {(): len(member.revoking)},
            "member_epoch": {(): max(0, member.epoch)},
            "group_epoch_lag": {(): epochs_behind(member, group)},
            "heartbeat_age_seconds": {(): age if age != math.inf else 0.0},
            "last_poll_timestamp_seconds": {(): self._counters.last_poll_timestamp},
            "last_commit_timestamp_seconds": {(): self._counters.last_commit_timestamp},
            "state": {(state,): float(state == current) for state in STATES},
            "build_info": {self._build: 1},
        }


def _by_text(counts: Mapping[str, float]) -> Samples:
    return {(label,): count for label, count in list(counts.items())}
