"""faststream-concurrent-aiokafka: a task a message, and commits behind the last finished one of each partition."""

from __future__ import annotations

import asyncio

import msgspec
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from faststream_concurrent_aiokafka import (
    KafkaConcurrentProcessingMiddleware,
    initialize_concurrent_processing,
    stop_concurrent_processing,
)

from bench.loops.in_use import ALL_CALLS, SECONDS
from bench.meter import Count, Meter, read_job
from schemas.session import Session


async def main() -> None:
    job, meter = read_job(), Meter()
    seconds, decode = SECONDS[job.mode], msgspec.json.Decoder(Session).decode
    broker = KafkaBroker(job.servers, logger=None)
    broker.add_middleware(KafkaConcurrentProcessingMiddleware)
    app = FastStream(broker, logger=None)
    count = Count(meter, job.events, app.exit)

    async def decode_one(message):
        return decode(message.body)

    @broker.subscriber(
        job.topic,
        decoder=decode_one,
        group_id=job.group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
    )
    async def handle(event) -> None:  # noqa: ARG001 - what is measured is being called
        count.begin()
        await asyncio.sleep(seconds)
        count.add()

    @app.on_startup
    async def start() -> None:
        await initialize_concurrent_processing(
            broker.context,
            concurrency_limit=ALL_CALLS,
            commit_batch_size=1000,
            commit_batch_timeout_sec=1.0,
            max_uncommitted_tasks=None,  # faster: 8,000 events/s, and 2,400 with the default of 10,000
        )

    @app.on_shutdown  # before the broker is stopped, which a lifespan is not
    async def stop() -> None:
        await broker.context.get("concurrent_processing").committer.commit_all()
        await stop_concurrent_processing(broker.context)

    await app.run(log_level=50)
    meter.report(count.handled)


if __name__ == "__main__":
    asyncio.run(main())
