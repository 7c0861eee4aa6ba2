"""Definitions of all exported metrics: name, type, labels and help.

Label values come from closed sets only, never from a record. A test compares the documentation's table with this list.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "session_consumer_"


class Metric(NamedTuple):
    """One metric, its name without the prefix. A counter's name ends in ``_total``, after its unit if it has one.

    ``consumer/observe/histogram.py`` has the bounds of histograms and their reasons.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS = [
    Metric("records_consumed_total", "counter", ("topic",), "Records delivered to this process."),
    Metric(
        "bytes_consumed_total",
        "counter",
        ("topic",),
        "Bytes of the batches of those records as they were fetched: compressed, if the producer compressed.",
    ),
    Metric("outcomes_total", "counter", ("route", "outcome"), "Outcomes, one per record and matching route."),
    Metric("decode_errors_total", "counter", ("topic", "reason"), "Records that could not be decoded."),
    Metric(
        "handler_errors_total",
        "counter",
        ("route", "kind"),
        "Handler calls that raised, or that passed their time limit.",
    ),
    Metric(
        "abandoned_total",
        "counter",
        ("route",),
        "Records left undone at a stop or rebalance, because they waited or the drain ended first.",
    ),
    Metric("retries_total", "counter", ("route",), "Handler calls with a record or batch that failed before."),
    Metric("dead_letters_total", "counter", ("topic", "reason"), "Dead letters written, by the topic of the record."),
    Metric("commits_total", "counter", ("result",), "Commits, by result."),
    Metric(
        "rebalances_total",
        "counter",
        ("kind",),
        "Assignments, revocations and losses of partitions, and revocations whose drain was slow.",
    ),
    Metric("client_rebuilds_total", "counter", ("reason",), "Kafka clients that were replaced, by reason."),
    Metric(
        "offset_resets_total",
        "counter",
        ("topic", "reason"),
        "Positions that were set because the group had none or the broker had lost it.",
    ),
    Metric(
        "loop_seconds_total",
        "counter",
        ("state",),
        "Seconds of the event loop: work, or waiting for records (poll), handlers (backpressure), commit, drain.",
    ),
    Metric(
        "inline_seconds_total",
        "counter",
        ("route",),
        "Seconds that calls kept the event loop, timed in slices. With a single route decoding is included.",
    ),
    Metric(
        "handler_seconds",
        "histogram",
        ("route",),
        "Seconds of calls that waited 0.1 ms or longer, and of all batch calls.",
    ),
    Metric("batch_records", "histogram", ("route",), "Records per call of a batch route."),
    Metric(
        "record_age_seconds",
        "histogram",
        ("topic",),
        "Age of records in seconds when they are worked on, sampled once per slice.",
    ),
    Metric("commit_seconds", "histogram", (), "Seconds from sending a commit to its answer."),
    Metric(
        "partition_move_seconds",
        "histogram",
        ("phase",),
        "Seconds for which a moving partition stood still here: revoked, until the group knew; assigned, until it"
        " began. Group protocol consumer.",
    ),
    Metric("lag_records", "gauge", ("topic", "partition"), "End offset minus committed offset."),
    Metric(
        "lag_seconds",
        "gauge",
        ("topic", "partition"),
        "Age in seconds of the oldest record not committed; 0 when caught up.",
    ),
    Metric("end_offset_age_seconds", "gauge", ("topic", "partition"), "Seconds since the end offset was measured."),
    Metric(
        "position_lag_records", "gauge", ("topic", "partition"), "End offset minus the next offset to be delivered."
    ),
    Metric("committed_offset", "gauge", ("topic", "partition"), "Next offset to read after a restart."),
    Metric("in_flight_records", "gauge", ("topic", "partition"), "Records delivered and not below the watermark."),
    Metric(
        "in_flight_bytes",
        "gauge",
        ("topic", "partition"),
        "Bytes of those records, headers included, and of fetches that batches keep.",
    ),
    Metric("max_in_flight_records", "gauge", (), "Limit of in_flight_records per partition."),
    Metric(
        "holding",
        "gauge",
        ("topic", "partition"),
        "1 while records wait for a Retry, a Pause, a dead letter or the group.",
    ),
    Metric("halted", "gauge", ("topic", "partition", "reason"), "1 while a partition waits for a person."),
    Metric("assigned_partitions", "gauge", (), "Partitions owned now."),
    Metric("revoking_partitions", "gauge", (), "Partitions that are drained because they move to another member."),
    Metric("member_epoch", "gauge", (), "Epoch, or generation, of this member; 0 while it is in no group."),
    Metric(
        "group_epoch_lag",
        "gauge",
        (),
        "Epochs by which this member is behind its group as it was last described. Group protocol consumer.",
    ),
    Metric("heartbeat_age_seconds", "gauge", (), "Seconds since the group last answered a heartbeat."),
    Metric("last_poll_timestamp_seconds", "gauge", (), "Time of the last poll for records."),
    Metric("last_commit_timestamp_seconds", "gauge", (), "Time of the last successful commit."),
    Metric("state", "gauge", ("state",), "1 for the current state: starting, running, rebuilding or draining."),
    Metric("build_info", "gauge", ("version", "python", "aiokafka"), "1, with the versions as labels."),
]

PARTITION_GAUGES = [metric for metric in METRICS if "partition" in metric.labels]
"""Gauges with a sample for each owned partition."""
