"""confluent-kafka's ``AIOConsumer``: ``consume``, then a task an event in a group per poll, and one commit per poll."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec
from confluent_kafka import KafkaException, Message
from confluent_kafka.aio import AIOConsumer

from bench.loops.in_use import CALLS, SECONDS
from bench.meter import Meter, read_job
from schemas.session import Session

POLL_RECORDS = 10_000
FETCH_BYTES = 65_536
"""librdkafka returns whole fetches in turn: with the default of 1 MiB a poll has the records of one partition, and 64
calls wait where 256 could. Measured with calls of 10 ms: 6,900 events/s with the default, 15,000 with this."""


async def main() -> None:
    job, meter = read_job(), Meter()
    seconds, handled = SECONDS[job.mode], 0
    decode = msgspec.json.Decoder(Session).decode
    consumer = AIOConsumer(
        {
            "bootstrap.servers": job.servers,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
            "max.partition.fetch.bytes": FETCH_BYTES,
        },
        max_workers=2,
    )

    async def call(message: Message, before: asyncio.Task[None] | None, slots: asyncio.Semaphore) -> None:
        if before is not None:
            await before
        async with slots:
            decode(message.value())
            await asyncio.sleep(seconds)

    await consumer.subscribe([job.topic])
    while handled < job.events:
        if not handled:
            meter.first()
        messages = await consumer.consume(POLL_RECORDS, timeout=0.05 if handled else 0.01)
        if not messages:
            continue
        limits, last = defaultdict(lambda: asyncio.Semaphore(CALLS)), {}
        async with asyncio.TaskGroup() as group:
            for message in messages:
                if message.error():
                    raise KafkaException(message.error())
                key = message.key()
                last[key] = group.create_task(call(message, last.get(key), limits[message.partition()]))
        handled += len(messages)
        if handled >= job.events:
            meter.last()
        await consumer.commit(asynchronous=False)
    await consumer.close()
    meter.report(handled)


if __name__ == "__main__":
    asyncio.run(main())
