"""kafka-python: ``poll`` and decode; one commit at the end."""

from __future__ import annotations

import msgspec
from kafka import KafkaConsumer

from bench.meter import Meter, read_job
from schemas.session import Session


def main() -> None:
    job, meter = read_job(), Meter()
    consumer = KafkaConsumer(
        job.topic,
        bootstrap_servers=job.servers,
        group_id=job.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    decode, handled = msgspec.json.Decoder(Session).decode, 0
    while handled < job.events:
        if not handled:
            meter.first()
        found = consumer.poll(timeout_ms=1000 if handled else 200)
        for records in found.values():
            for record in records:
                decode(record.value)
                handled += 1
    meter.last()
    consumer.commit()
    consumer.close()
    meter.report(handled)


if __name__ == "__main__":
    main()
