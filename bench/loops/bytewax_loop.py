"""Bytewax: a dataflow of one worker; it keeps offsets in its recovery store, not in Kafka's group."""

from __future__ import annotations

import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from bench.meter import Count, Meter, read_job
from schemas.session import Session


def main() -> None:
    job, meter = read_job(), Meter()
    count = Count(meter, job.events, lambda: None)
    decode = msgspec.json.Decoder(Session).decode

    def handle(message) -> bool:
        decode(message.value)
        count.add()
        return False

    flow = Dataflow("bench")
    source = KafkaSource([job.servers], [job.topic], tail=False, batch_size=1000)
    op.output("out", op.filter("count", op.input("in", flow, source), handle), TestingSink([]))
    run_main(flow)
    meter.report(count.handled)


if __name__ == "__main__":
    main()
