"""sentry-arroyo: a stream processor with RunTask, one commit a second."""

from __future__ import annotations

import msgspec
from arroyo.backends.kafka import KafkaConsumer
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategyFactory
from arroyo.types import Topic

from bench.meter import Count, Meter, read_job
from schemas.session import Session


class Factory(ProcessingStrategyFactory):
    def __init__(self, handle) -> None:
        self._handle = handle

    def create_with_partitions(self, commit, partitions):  # noqa: ARG002 - arroyo's interface
        return RunTask(self._handle, CommitOffsets(commit))


def main() -> None:
    job, meter = read_job(), Meter()
    decode = msgspec.json.Decoder(Session).decode
    options = build_kafka_consumer_configuration(
        {}, bootstrap_servers=[job.servers], group_id=job.group, auto_offset_reset="earliest"
    )

    def handle(message):
        event = decode(message.payload.value)
        count.add()
        return event

    processor = StreamProcessor(KafkaConsumer(options), Topic(job.topic), Factory(handle), ONCE_PER_SECOND)
    count = Count(meter, job.events, processor.signal_shutdown)
    processor.run()
    meter.report(count.handled)


if __name__ == "__main__":
    main()
