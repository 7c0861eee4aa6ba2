"""Quix Streams: one dataframe that decodes and counts, its default commits."""

from __future__ import annotations

import msgspec
from quixstreams import Application

from bench.meter import Count, Meter, read_job
from schemas.session import Session


def main() -> None:
    job, meter = read_job(), Meter()
    app = Application(
        broker_address=job.servers,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="ERROR",
    )
    count = Count(meter, job.events, app.stop)
    decode = msgspec.json.Decoder(Session).decode
    topic = app.topic(job.topic, key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(topic).apply(decode).update(lambda _event: count.add())
    app.run()
    meter.report(count.handled)


if __name__ == "__main__":
    main()
