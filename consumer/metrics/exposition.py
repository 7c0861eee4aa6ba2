"""The text of a scrape: most of it by prometheus_client, and the gauges of partitions here.

A daemon has ten samples for each partition. The library takes ten times as long for them: it checks and escapes each
label of each sample.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.registry import Collector

from consumer.metrics.definitions import PARTITION_GAUGES, PREFIX
from consumer.partition.state import Partition

END = b"# EOF\n"
"""Last line of the OpenMetrics format."""


def exposition(collector: Collector, partitions: Iterable[Partition], accept: str) -> tuple[bytes, str]:
    """Return the body and the content type of a scrape: OpenMetrics if the scraper accepts it, else the text format.

    Both formats write a gauge the same way.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    if isinstance(encode, partial) and encode.keywords.get("escaping") == UNDERSCORES:
        # Our names need no escaping. The library checks each of their letters, which takes half of its time.
        encode = partial(encode.func, **encode.keywords | {"escaping": ALLOWUTF8})
    encoded: Any = encode(registry)
    body: bytes = encoded.removesuffix(END)
    return b"".join((body, gauges(partitions).encode(), encoded[len(body) :])), content_type


def gauges(partitions: Iterable[Partition]) -> str:
    """Return the lines of the partitions' gauges; a value that is not known has no line.

    A topic's name needs no escaping: it has letters, digits, dots, hyphens and underscores only.
    """
    lines: dict[str, list[str]] = {metric.name: [] for metric in PARTITION_GAUGES}
    now, wall = time.monotonic(), time.time()
    for each in partitions:
        labels = f'partition="{each.key.partition}",topic="{each.key.topic}"'
        for name, value in _values(each, now, wall).items():
            if value is not None:
                lines[name].append(f"{PREFIX}{name}{{{labels}}} {value}\n")
        if (halt := each.halt) is not None:
            lines["halted"].append(f'{PREFIX}halted{{{labels},reason="{halt.reason.value}"}} 1\n')
    heads = {metric.name: _head(metric.name, metric.help) for metric in PARTITION_GAUGES}
    return "".join(heads[name] + "".join(found) for name, found in lines.items())


def _values(partition: Partition, now: float, wall: float) -> dict[str, float | None]:
    records, size = partition.in_flight
    lag = partition.lag
    return {
        "lag_records": partition.lag_records,
        "position_lag_records": partition.position_lag_records,
        "lag_seconds": partition.lag_seconds(wall),
        "end_offset_age_seconds": max(0.0, now - lag.measured_at) if lag.end_offset is not None else None,
        "committed_offset": partition.known_committed,
        "in_flight_records": records,
        "in_flight_bytes": size,
        "holding": int(bool(partition.holds and partition.held)),
    }


def _head(name: str, text: str) -> str:
    return f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} gauge\n"
