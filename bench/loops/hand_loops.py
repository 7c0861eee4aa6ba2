"""Loops written by hand over aiokafka ``getmany``, one for each work of "In use"; each commits once per poll.

They give the order of the daemon for the same work, and commit an offset only after its handling. They have no
retries, dead letters, metrics or memory limits. They flush their files before a commit, but sync none.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from bench.loops.aiokafka_loops import FIRST_MS, connect
from bench.loops.in_use import CALLS, FILES, SECONDS, SECRET
from bench.meter import Meter, read_job
from schemas.session import Session

BUFFER_BYTES = 1_048_576

Found = dict[TopicPartition, list[ConsumerRecord]]
Decode = Callable[[bytes], Any]
Handle = Callable[[Any], Awaitable[None]]
Work = Callable[[Found], Awaitable[None]]


async def until_all(job, meter: Meter, consumer: AIOKafkaConsumer, work: Work) -> int:
    """Poll, handle and commit until all events are handled."""
    handled = 0
    while handled < job.events:
        if not handled:
            meter.first()  # before the call, which makes all that it found into objects before it returns
        found = await consumer.getmany(timeout_ms=1000 if handled else FIRST_MS)
        if not found:
            continue
        await work(found)
        handled += sum(map(len, found.values()))
        if handled >= job.events:
            meter.last()
        await consumer.commit()
    return handled


def decoder(**options) -> Decode:
    """Make a decoder of a Struct with the fields of Session and other options, as written for such data."""
    fields = msgspec.structs.fields(Session)
    written = [(each.name, each.type) if each.required else (each.name, each.type, each.default) for each in fields]
    return msgspec.json.Decoder(msgspec.defstruct("Event", written, frozen=True, gc=False, **options)).decode


def decoding(decode: Decode) -> Work:
    """Decode each record, and nothing else."""
    checked = False

    async def work(found: Found) -> None:
        nonlocal checked
        for records in found.values():
            for record in records:
                event = decode(record.value)
            if not checked:
                assert event.session_id, "the Struct does not fit the data"
                checked = True

    return work


def routing(folder: Path, opened: ExitStack) -> Work:
    """Three routes by if/elif: the lines of two files, and a counter that is awaited."""
    decode, encode = msgspec.json.Decoder(Session).decode, msgspec.json.Encoder().encode
    voice, chat = (opened.enter_context((folder / name).open("ab", BUFFER_BYTES)) for name in FILES)
    counted = 0

    async def count(_event: Session) -> None:
        nonlocal counted
        counted += 1

    async def work(found: Found) -> None:
        for records in found.values():
            for record in records:
                event = decode(record.value)
                kind = event.channel_manager_type or ""
                if kind.startswith("voice_"):
                    voice.write(encode(event) + b"\n")
                elif "_chat_" in kind:
                    chat.write(encode(event) + b"\n")
                await count(event)
        voice.flush()
        chat.flush()

    return work


def waiting_in_order(handle: Handle) -> Work:
    """A task a partition, which awaits one call after the other."""
    decode = msgspec.json.Decoder(Session).decode

    async def partition(records: list[ConsumerRecord]) -> None:
        for record in records:
            await handle(decode(record.value))

    async def work(found: Found) -> None:
        async with asyncio.TaskGroup() as group:
            for records in found.values():
                group.create_task(partition(records))

    return work


def waiting(handle: Handle) -> Work:
    """A task an event in one group per poll; a semaphore a partition; a task awaits the one before it of its key."""
    decode = msgspec.json.Decoder(Session).decode

    async def call(record: ConsumerRecord, before: asyncio.Task[None] | None, slots: asyncio.Semaphore) -> None:
        if before is not None:
            await before
        async with slots:
            await handle(decode(record.value))

    async def work(found: Found) -> None:
        async with asyncio.TaskGroup() as group:
            for records in found.values():
                slots, last = asyncio.Semaphore(CALLS), {}
                for record in records:
                    last[record.key] = group.create_task(call(record, last.get(record.key), slots))

    return work


def waiting_for_a_slot(handle: Handle) -> Work:
    """The same, but a task is made only when its partition has a free slot, and forgotten when it ends."""
    decode = msgspec.json.Decoder(Session).decode

    async def partition(records: list[ConsumerRecord]) -> None:
        slots, busy = asyncio.Semaphore(CALLS), {}

        async def call(event: Session, key: bytes | None, before: asyncio.Task[None] | None) -> None:
            if before is not None:
                await before
            await handle(event)
            if busy[key] is asyncio.current_task():
                del busy[key]
            slots.release()

        async with asyncio.TaskGroup() as group:
            for record in records:
                await slots.acquire()
                key = record.key
                busy[key] = group.create_task(call(decode(record.value), key, busy.get(key)))

    async def work(found: Found) -> None:
        async with asyncio.TaskGroup() as group:
            for records in found.values():
                group.create_task(partition(records))

    return work


def work_of(job, opened: ExitStack) -> Work:
    mode, _, form = job.mode.partition(":")
    if mode in SECONDS:
        seconds = SECONDS[mode]

        async def handle(_event: Session) -> None:
            await asyncio.sleep(seconds)

        if mode == "wait0_partition":
            return waiting_in_order(handle)
        return waiting_for_a_slot(handle) if form == "slot" else waiting(handle)
    if mode == "routes3":
        return routing(Path(job.folder), opened)
    return decoding(decoder(rename="camel") if mode == "camel" else decoder())


def sending(url: str, session: aiohttp.ClientSession) -> Handle:
    """Send each event in a signed POST, over kept connections."""
    encode, key, numbers = msgspec.json.Encoder().encode, SECRET.encode(), itertools.count()

    async def handle(event: Session) -> None:
        body, name, seconds = encode(event), f"{next(numbers)}", int(time.time())
        signature = base64.b64encode(hmac.digest(key, f"{name}.{seconds}.".encode() + body, "sha256")).decode()
        headers = {"webhook-id": name, "webhook-timestamp": str(seconds), "webhook-signature": f"v1,{signature}"}
        async with session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            answer.raise_for_status()

    return handle


async def send(job, meter: Meter, consumer: AIOKafkaConsumer, url: str) -> int:
    connector, headers = aiohttp.TCPConnector(limit=CALLS), {"content-type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        return await until_all(job, meter, consumer, waiting_for_a_slot(sending(url, session)))


async def republish(job, meter: Meter, consumer: AIOKafkaConsumer, topic: str) -> int:
    """Send the event of each record, and await all acknowledgements of a poll before its commit."""
    decode, encode = msgspec.json.Decoder(Session).decode, msgspec.json.Encoder().encode
    producer = AIOKafkaProducer(
        bootstrap_servers=job.servers, enable_idempotence=True, compression_type="lz4", max_batch_size=131_072
    )
    await producer.start()

    async def work(found: Found) -> None:
        sent = []
        for records in found.values():
            for record in records:
                value, headers = encode(decode(record.value)), record.headers
                sent.append(
                    await producer.send(topic, value, record.key, timestamp_ms=record.timestamp, headers=headers)
                )
        for each in sent:
            await each

    try:
        return await until_all(job, meter, consumer, work)
    finally:
        await producer.stop()


async def main() -> None:
    job, meter = read_job(), Meter()
    consumer = connect(job)
    with ExitStack() as opened:
        await consumer.start()
        try:
            while not consumer.assignment():  # noqa: ASYNC110 - neither tells
                await asyncio.sleep(0.01)
            mode, _, url = job.mode.partition(":")
            if mode == "webhook":
                handled = await send(job, meter, consumer, url)
            elif mode == "republish":
                handled = await republish(job, meter, consumer, url)
            else:
                handled = await until_all(job, meter, consumer, work_of(job, opened))
        finally:
            await consumer.stop()
    meter.report(handled)


if __name__ == "__main__":
    asyncio.run(main())
