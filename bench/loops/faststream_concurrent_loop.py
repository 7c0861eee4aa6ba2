"""faststream-concurrent-aiokafka: a task a message, and commits behind the last finished one of each partition."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

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

    @asynccontextmanager
    async def lifespan():
        running = await initialize_concurrent_processing(
            broker.context, concurrency_limit=ALL_CALLS, commit_batch_size=1000, commit_batch_timeout_sec=1.0
        )
        yield
        await running.committer.commit_all()  # stopping cancels calls, and the last one has just called exit
        await stop_concurrent_processing(broker.context)

    app = FastStream(broker, logger=None, lifespan=lifespan)
    count = Count(meter, job.events, app.exit)
    await app.run(log_level=50)
    meter.report(count.handled)


if __name__ == "__main__":
    asyncio.run(main())
