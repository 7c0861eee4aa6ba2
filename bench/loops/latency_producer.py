"""Sends sessions with their sending time at a steady rate; confluent-kafka, no lingering."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
from confluent_kafka import Producer

from bench.meter import read_job, say
from schemas.session import Session

TICK_SECONDS = 0.001
FLUSH_SECONDS = 30.0


def main() -> None:
    job = read_job()
    producer = Producer({"bootstrap.servers": job.servers, "linger.ms": 1, "compression.type": "lz4"})
    encode = msgspec.json.Encoder().encode
    template = {
        "timestamp": datetime.now(UTC),
        "conversation_id": "4711",
        "channel_manager_service": "twilio",
        "channel_manager_type": "voice_sip_v1",
        "channel_manager_sid": "CA0123456789abcdef0123456789abcdef",
        "source": "+18045550003",
        "target": "+19995551234",
        "agent_name": "Front desk",
    }
    began = time.monotonic()
    for number in range(job.events):
        while (ahead := number / job.rate - (time.monotonic() - began)) > 0:
            producer.poll(0)
            time.sleep(max(ahead, TICK_SECONDS))
        session = Session(session_id=str(number), session_label_id=str(time.monotonic_ns()), **template)
        producer.produce(job.topic, encode(session), key=str(number).encode())
    left = producer.flush(FLUSH_SECONDS)
    say(handled=job.events - left, seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
