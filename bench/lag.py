"""How far the daemon's lag is behind the brokers, while records come in bursts.

``python -m bench.lag`` samples a daemon's ``/status.json`` while a producer appends bursts, each sample beside the end
offsets that the brokers state themselves just before it. Prints for a handler that returns at once and for one that
takes 1 ms: the samples, how many were too low by more than 0.3 s of traffic, and the worst in seconds of traffic.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import aiokafka

from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.producer import create_topic
from consumer.settings.sections import Kafka
from tests.cluster import a_route, a_session
from tests.process import RunningConsumer

PARTITIONS = 4
SAMPLES = 50
EVERY_SECONDS = 0.4
BURST_SECONDS, PAUSE_SECONDS = 2.0, 1.0
A_SECOND = 8_000
"""Records a second in a burst."""
BOUND_SECONDS = 0.3
HANDLERS = Path(__file__).parent.parent / "tests" / "handlers"


async def produce(servers: str, topic: str) -> None:
    """Append bursts of records until cancelled."""
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=servers, linger_ms=5) as producer:
        number = 0
        while True:
            began = time.monotonic()
            while (passed := time.monotonic() - began) < BURST_SECONDS:
                for _ in range(max(0, round(passed * A_SECOND) - number)):
                    await producer.send(topic, a_session(number), partition=number % PARTITIONS)
                    number += 1
                await asyncio.sleep(0.01)
            number = 0
            await asyncio.sleep(PAUSE_SECONDS)


async def sample(daemon: RunningConsumer, reader: aiokafka.AIOKafkaConsumer, topic: str) -> tuple[int, int]:
    """Return the records at the brokers, and those that the daemon knows of, a moment later."""
    ends = await reader.end_offsets([aiokafka.TopicPartition(topic, number) for number in range(PARTITIONS)])
    _, body = await daemon.get("/status.json")
    known = [each["committed_offset"] + each["lag_records"] for each in json.loads(body)["partitions"]]
    return sum(ends.values()), sum(known)


async def measure(servers: str, delay: float) -> dict[str, object]:
    """Return the figures for a handler that takes ``delay`` seconds."""
    topic = f"lag-{round(delay * 1000)}"
    kafka = Kafka(bootstrap_servers=servers.split(","), topics=[topic], group_id=topic)
    await create_topic(kafka, topic, PARTITIONS)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.toml"
        handler = a_route("waiting:Waiting", seconds=delay)
        settings.write_text(f'path = ["{HANDLERS}"]\n{handler}')
        sets = [f"kafka.bootstrap_servers={servers}", f"kafka.topics={topic}", f"kafka.group_id={topic}"]
        async with (
            RunningConsumer(settings, [*sets, "http.port=0", "log.format=json", "dead_letter.topic="]) as daemon,
            aiokafka.AIOKafkaConsumer(bootstrap_servers=servers) as reader,
        ):
            await daemon.said("partitions_assigned")
            producing = asyncio.create_task(produce(servers, topic))
            low = []
            for _ in range(SAMPLES):
                await asyncio.sleep(EVERY_SECONDS)
                there, known = await sample(daemon, reader, topic)
                low.append(max(0, there - known) / A_SECOND)
            producing.cancel()
            await asyncio.wait([producing])
            await daemon.stop()
    return {
        "handler_seconds": delay,
        "samples": SAMPLES,
        "too_low": sum(each > BOUND_SECONDS for each in low),
        "worst_seconds": round(max(low), 3),
        "median_seconds": round(median(low), 4),
    }


async def main() -> None:
    async with LocalKafka(report=lambda text: print(text, file=sys.stderr)) as kafka:
        for delay in (0.0, 0.001, 0.01):
            print(json.dumps(await measure(kafka.bootstrap_servers, delay)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
