"""The text of a scrape: every metric once, in both formats, with the gauges of partitions."""

from __future__ import annotations

import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from consumer.metrics.collector import DaemonCollector
from consumer.metrics.definitions import METRICS, PREFIX
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt, Hold
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from tests.fakes.observed import FakeObserved

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
TOPIC = "a.Topic_with-all.Letters0"


def a_partition(number: int, *, end: int | None = 30) -> Partition:
    partition = Partition(TopicPartition(TOPIC, number), 1)
    partition.start(10)
    if end is not None:
        partition.lag.ends_at(end, 10, time.monotonic(), time.time() - 5)
    return partition


def scraped(accept: str, *partitions: Partition) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return the samples of a scrape, by name and labels, as Prometheus's own library reads them."""
    seconds = dict.fromkeys(("poll", "work", "backpressure", "commit", "drain"), 1.0)
    observed = FakeObserved(partitions=list(partitions), seconds=seconds)
    body, content_type = DaemonCollector(Counters([TOPIC], ["r"]), observed, 2000).scrape(accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in parse(body.decode()):
        for sample in family.samples:
            values = found.setdefault(sample.name.removeprefix(PREFIX), {})
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in values, (sample.name, labels)
            values[labels] = sample.value
    return found


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_gauges_of_partitions(accept: str) -> None:
    """Each partition has its gauges; a halt has its reason."""
    first, second = a_partition(0), a_partition(7)
    first.hold(12, 100)
    first.holds.add(Hold("pause", "r", 12, 0.0))
    second.halt = Halt(HaltReason.CORRUPT_BATCH, 12, "broken")
    found = scraped(accept, first, second)
    labels = [(("partition", str(number)), ("topic", TOPIC)) for number in (0, 7)]
    assert found["lag_records"] == dict.fromkeys(labels, 20.0)
    assert found["committed_offset"] == dict.fromkeys(labels, 10.0)
    assert found["in_flight_records"] == {labels[0]: 1.0, labels[1]: 0.0}
    assert found["in_flight_bytes"] == {labels[0]: 100.0, labels[1]: 0.0}
    assert found["holding"] == {labels[0]: 1.0, labels[1]: 0.0}
    assert found["halted"] == {(labels[1][0], ("reason", "corrupt_batch"), labels[1][1]): 1.0}
    assert all(5 <= seconds < 60 for seconds in found["lag_seconds"].values())
    assert found["assigned_partitions"] == {(): 2.0}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_what_is_not_known_has_no_sample(accept: str) -> None:
    """A partition whose end or start is not known has no lag; without partitions no gauge has a sample."""
    found = scraped(accept, a_partition(0, end=None))
    assert "lag_records" not in found
    assert "end_offset_age_seconds" not in found
    assert "committed_offset" in found
    assert "in_flight_records" not in scraped(accept)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_metric_is_described_once(accept: str) -> None:
    """Each defined metric has one HELP and one TYPE line with its text, also without a sample."""
    observed = FakeObserved(seconds=dict.fromkeys(("poll", "work", "backpressure", "commit", "drain"), 1.0))
    body, _ = DaemonCollector(Counters([TOPIC], ["r"]), observed, 2000).scrape(accept)
    lines = body.decode().splitlines()
    for metric in METRICS:
        name = PREFIX + (metric.name.removesuffix("_total") if accept else metric.name)
        assert lines.count(f"# TYPE {name} {metric.kind}") == 1
        assert lines.count(f"# HELP {name} {metric.help}") == 1
    assert (lines[-1] == "# EOF") == bool(accept)
