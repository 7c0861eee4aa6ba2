"""Every metric that is exported, in one place: name, type, labels, and what it tells.

Label values come from closed sets only, never from a record. The README's table is held to this by a test.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "session_consumer_"


class Metric(NamedTuple):
    """One metric without its prefix; a counter's name ends in ``_total``, and a unit stands before that.

    The bounds of histograms, and the reasons for them, stand in ``consumer/observe/histogram.py``.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS = [
    Metric("records_consumed_total", "counter", ("topic",), "Records delivered to this process."),
    Metric("bytes_consumed_total", "counter", ("topic",), "Bytes of the fetches they came in."),
    Metric("outcomes_total", "counter", ("route", "outcome"), "Outcomes, one a record and matching route."),
    Metric("decode_errors_total", "counter", ("topic", "reason"), "Records that are not an event."),
    Metric("handler_errors_total", "counter", ("route", "kind"), "Calls of a handler that raised."),
    Metric(
        "abandoned_total",
        "counter",
        ("route",),
        "Records left undone at a stop or rebalance: they waited, or took long.",
    ),
    Metric("retries_total", "counter", ("route",), "Calls of a handler with a record or batch that failed before."),
    Metric("dead_letters_total", "counter", ("topic", "reason"), "Dead letters written, by the topic consumed."),
    Metric("commits_total", "counter", ("result",), "Commits by how they ended."),
    Metric("rebalances_total", "counter", ("kind",), "Assignments, revocations and losses of partitions."),
    Metric("client_rebuilds_total", "counter", ("reason",), "Kafka clients that were replaced, by why."),
    Metric("offset_resets_total", "counter", ("topic", "reason"), "Positions that had to be chosen anew."),
    Metric(
        "loop_seconds_total",
        "counter",
        ("state",),
        "The event loop's time: work, or waiting: for records (poll), handlers (backpressure), commit, drain.",
    ),
    Metric(
        "inline_seconds_total",
        "counter",
        ("route",),
        "Time that calls kept the event loop, timed a slice at a time; with one route decoding is in it.",
    ),
    Metric("handler_seconds", "histogram", ("route",), "Calls that waited 0.1 ms or more, and all calls of batches."),
    Metric("batch_records", "histogram", ("route",), "Records a call of a batch route."),
    Metric("record_age_seconds", "histogram", ("topic",), "Age of records when worked on, taken once a slice."),
    Metric("commit_seconds", "histogram", (), "From sending a commit to its answer."),
    Metric("lag_records", "gauge", ("topic", "partition"), "End of the partition less the committed offset."),
    Metric("lag_seconds", "gauge", ("topic", "partition"), "Age of the oldest record not committed; 0 when caught up."),
    Metric("end_offset_age_seconds", "gauge", ("topic", "partition"), "How long ago that end was learnt."),
    Metric("position_lag_records", "gauge", ("topic", "partition"), "End of the partition less the next to be read."),
    Metric("committed_offset", "gauge", ("topic", "partition"), "Next offset to read after a restart."),
    Metric("in_flight_records", "gauge", ("topic", "partition"), "Records delivered and not below what is done."),
    Metric("in_flight_bytes", "gauge", ("topic", "partition"), "Bytes of key and value of those."),
    Metric("max_in_flight_records", "gauge", (), "Limit of in_flight_records, per partition."),
    Metric(
        "holding",
        "gauge",
        ("topic", "partition"),
        "1 while records wait for a Retry, a Pause, a dead letter or the group.",
    ),
    Metric("halted", "gauge", ("topic", "partition", "reason"), "1 while a partition waits for a person."),
    Metric("assigned_partitions", "gauge", (), "Partitions owned now."),
    Metric("last_poll_timestamp_seconds", "gauge", (), "When the client was last asked for records."),
    Metric("last_commit_timestamp_seconds", "gauge", (), "When a commit last succeeded."),
    Metric("state", "gauge", ("state",), "1 for what the daemon does now: starting, running, rebuilding or draining."),
    Metric("build_info", "gauge", ("version", "python", "aiokafka"), "1, with the versions as labels."),
]
