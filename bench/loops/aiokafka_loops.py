"""aiokafka itself: ``getmany`` (the bare loop that all ratios refer to) and ``getone``."""

from __future__ import annotations

import asyncio
import time

import msgspec
from aiokafka import AIOKafkaConsumer

from bench.meter import Meter, read_job, say
from schemas.session import Session

FIRST_MS = 10
"""Time that a call waits for the first records; the clocks start with the call that returns them."""


def connect(job) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.servers,
        group_id=job.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


async def bare(job, meter: Meter, consumer: AIOKafkaConsumer) -> int:
    """``getmany`` and decode, nothing else; one commit at the end."""
    decode, handled = msgspec.json.Decoder(Session).decode, 0
    while handled < job.events:
        if not handled:
            meter.first()  # before the call, which makes all that it found into objects before it returns
        found = await consumer.getmany(timeout_ms=1000 if handled else FIRST_MS)
        for records in found.values():
            for record in records:
                decode(record.value)
                handled += 1
    meter.last()
    return handled


async def getone(job, meter: Meter, consumer: AIOKafkaConsumer) -> int:
    """``getone`` and decode; one commit at the end."""
    decode, handled = msgspec.json.Decoder(Session).decode, 0
    while handled < job.events:
        record = await consumer.getone()
        if not handled:
            meter.first()
        decode(record.value)
        handled += 1
    meter.last()
    return handled


async def latency(job, meter: Meter, consumer: AIOKafkaConsumer) -> int:
    """``getone`` on records that contain their sending time."""
    decode, took = msgspec.json.Decoder(Session).decode, []
    say(ready=True)
    while len(took) < job.events:
        record = await consumer.getone()
        if not took:
            meter.first()
        took.append(time.monotonic_ns() - int(decode(record.value).session_label_id))
    meter.last()
    say(latencies_ns=took[job.warm :])
    return len(took)


async def main() -> None:
    job, meter = read_job(), Meter()
    consumer = connect(job)
    await consumer.start()
    try:
        while not consumer.assignment():  # noqa: ASYNC110 - neither tells
            await asyncio.sleep(0.01)
        handled = await {"bare": bare, "getone": getone, "latency": latency}[job.mode](job, meter, consumer)
        await consumer.commit()
    finally:
        await consumer.stop()
    meter.report(handled)


if __name__ == "__main__":
    asyncio.run(main())
