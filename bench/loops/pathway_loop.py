"""Pathway: its reader in Rust parses the JSON into columns; rows are counted in Python. No commit to the group."""

from __future__ import annotations

import os

import pathway as pw

from bench.meter import Count, Meter, read_job

TEXTS = [
    "timestamp",
    "session_id",
    "conversation_id",
    "channel_manager_service",
    "channel_manager_type",
    "channel_manager_sid",
    "source",
    "target",
    "agent_id",
    "agent_name",
]
OTHERS = {"is_legacy": bool | None, "is_test": bool | None, "duration": float | None}


def main() -> None:
    job, meter = read_job(), Meter()

    def done() -> None:
        meter.report(count.handled)
        os._exit(0)  # a stream has no end: nothing of its own would ever return

    count = Count(meter, job.events, done)
    columns = dict.fromkeys(TEXTS, str | None) | OTHERS
    schema = pw.schema_builder(
        {name: pw.column_definition(dtype=kind, default_value=None) for name, kind in columns.items()}
    )
    settings = {"bootstrap.servers": job.servers, "group.id": job.group, "auto.offset.reset": "earliest"}
    table = pw.io.kafka.read(settings, job.topic, schema=schema, format="json", autocommit_duration_ms=100)
    pw.io.subscribe(table, on_change=lambda **_row: count.add())
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
