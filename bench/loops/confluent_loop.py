"""confluent-kafka: ``consume(500)`` and decode, with its defaults and tuned."""

from __future__ import annotations

import msgspec
from confluent_kafka import Consumer, KafkaException

from bench.meter import Meter, read_job
from schemas.session import Session


def main() -> None:
    job, meter = read_job(), Meter()
    # Default: librdkafka pauses a second at a time when its queue is full, which a fast loop empties meanwhile.
    tuning = {"fetch.queue.backoff.ms": 5} if job.mode == "tuned" else {}
    consumer = Consumer(
        {
            "bootstrap.servers": job.servers,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **tuning,
        }
    )
    consumer.subscribe([job.topic])
    decode, handled = msgspec.json.Decoder(Session).decode, 0
    while handled < job.events:
        if not handled:
            meter.first()
        messages = consumer.consume(500, timeout=1.0 if handled else 0.01)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            decode(message.value())
            handled += 1
    meter.last()
    consumer.commit(asynchronous=False)
    consumer.close()
    meter.report(handled)


if __name__ == "__main__":
    main()
