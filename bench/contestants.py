"""The contestants: the module of each loop, its environment and its number of events."""

from __future__ import annotations

from typing import NamedTuple

from bench.data import Spelling


class Contestant(NamedTuple):
    name: str
    title: str
    module: str
    mode: str = ""
    peer: str | None = None
    """Name of its environment; None is this project's."""
    share: float = 1.0
    """Share of the table's events, for contestants that would take minutes with all."""
    commits: bool = True
    """Whether it commits to Kafka's group, where the driver can verify it."""
    informative: bool = False
    """Whether no claim depends on it: its failure is shown in the table, and does not end the benchmark."""
    spelling: Spelling = "snake"
    """Spelling of its records."""
    writes: bool = False
    """Whether it writes files, whose lines the driver counts."""
    note: str = ""
    """What the table must say about it."""

    @property
    def may_fail(self) -> bool:
        """Whether the benchmark goes on if it fails."""
        return self.peer is not None or self.informative


OURS = [
    Contestant("inline", "this project: inline", "ours", "inline"),
    Contestant("record", "this project: with Record", "ours", "record"),
    Contestant("async", "this project: async handler", "ours", "async"),
    Contestant("batch", "this project: batches of 500", "ours", "batch"),
    Contestant("key", "this project: ordering by key, async handler", "ours", "key"),
]
SUSPENDING = [
    Contestant(
        "async_suspending",
        "this project: async handler that suspends",
        "ours",
        "async_suspending",
        share=0.2,
        informative=True,
    ),
    Contestant(
        "key_suspending",
        "this project: by key, handler that suspends",
        "ours",
        "key_suspending",
        share=0.2,
        informative=True,
    ),
]
BARE = Contestant("bare", "aiokafka `getmany` + msgspec, nothing else", "aiokafka_loops", "bare")
GETONE = Contestant("getone", "aiokafka `getone` + msgspec", "aiokafka_loops", "getone", share=0.5)
TUNED = Contestant("confluent_tuned", "confluent-kafka `consume(500)`, tuned", "confluent_loop", "tuned", "confluent")
PEERS = [
    GETONE,
    TUNED,
    Contestant("confluent", "confluent-kafka `consume(500)`, defaults", "confluent_loop", "default", "confluent"),
    Contestant("faststream_batch", "FastStream, batch subscriber", "faststream_loop", "batch", "faststream"),
    Contestant("faststream", "FastStream, one message", "faststream_loop", "single", "faststream", share=0.06),
    Contestant("quix", "Quix Streams", "quix_loop", peer="quix", share=0.25),
    Contestant("arroyo", "sentry-arroyo, RunTask", "arroyo_loop", peer="arroyo", share=0.2),
    Contestant("bytewax", "Bytewax, KafkaSource", "bytewax_loop", peer="bytewax", share=0.4, commits=False),
    Contestant("pathway", "Pathway, its own JSON reader", "pathway_loop", peer="pathway", share=0.4, commits=False),
    Contestant("kafka_python", "kafka-python `poll`", "kafka_python_loop", peer="kafka-python", share=0.2),
]
INLINE = OURS[0]
