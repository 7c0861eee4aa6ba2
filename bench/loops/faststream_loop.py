"""FastStream over aiokafka: one message, batches, or ``max_workers``.

With a msgspec decoder, no logger, and its default acknowledgement, which commits before the handling.
"""

from __future__ import annotations

import asyncio

import msgspec
from faststream import FastStream
from faststream.kafka import KafkaBroker

from bench.loops.in_use import ALL_CALLS, SECONDS
from bench.meter import Count, Meter, read_job
from schemas.session import Session


async def main() -> None:
    job, meter = read_job(), Meter()
    decode = msgspec.json.Decoder(Session).decode
    broker = KafkaBroker(job.servers, logger=None)
    app = FastStream(broker, logger=None)
    count = Count(meter, job.events, app.exit)
    common = {"group_id": job.group, "auto_offset_reset": "earliest"}

    async def decode_one(message):
        return decode(message.body)

    async def decode_all(message):
        return [decode(body) for body in message.body]

    async def handle_one(event) -> None:  # noqa: ARG001 - what is measured is being called
        count.add()

    async def handle_all(events) -> None:
        count.add(len(events))

    async def handle_waiting(event) -> None:  # noqa: ARG001 - what is measured is being called
        count.begin()
        await asyncio.sleep(SECONDS[job.mode])
        count.add()

    if job.mode in SECONDS:
        broker.subscriber(job.topic, decoder=decode_one, max_workers=ALL_CALLS, **common)(handle_waiting)
    elif job.mode == "batch":
        broker.subscriber(job.topic, batch=True, decoder=decode_all, **common)(handle_all)
    else:
        broker.subscriber(job.topic, decoder=decode_one, **common)(handle_one)
    await app.run(log_level=50)
    meter.report(count.handled)


if __name__ == "__main__":
    asyncio.run(main())
