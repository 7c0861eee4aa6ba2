"""How a partition goes on: what ends a halt (something to mend, or a command that moves the group) and what a hold."""

from __future__ import annotations

import shlex

from consumer.outcome import HaltReason
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

MEND = {
    HaltReason.NO_DEAD_LETTER: "mend the handler, or have a topic for dead letters that takes it (dead_letter.topic)",
    HaltReason.OUT_OF_RANGE: "set kafka.out_of_range to earliest or latest",
    HaltReason.CORRUPT_BATCH: "nothing can read this batch: move past it",
    HaltReason.BATCH_TOO_LARGE: "set a larger kafka.max_batch_bytes",
    HaltReason.FUSE: "find what makes most records fail",
    HaltReason.NO_OFFSET: "set kafka.offset_reset to earliest or latest",
}

OR_RUN = "; or stop all members and run: "

HOLD_ENDS = {
    "retry": "the handler wants this record again later; it ends when the call succeeds",
    "pause": "what the handler needs is down; it ends when the same record gets through",
    "dead_letter": "Kafka does not take the dead letter; it ends when the brokers acknowledge it",
    "group": "the group does not hear this member; it ends with the next heartbeat that is answered, or a rebalance",
}
"""What ends a hold, by its kind. Nobody has to do anything here, except for what is down."""


def remedy(kafka: Kafka, key: TopicPartition, reason: HaltReason, next_offset: int) -> str:
    """Say what a person may do; a restart then goes on.

    ``next_offset`` is the first offset behind what halted it. Kafka moves a group only while no member is in it.
    """
    if reason is HaltReason.FUSE:  # to skip one record would not help
        return f"{MEND[reason]}, then restart"
    where = "--to-earliest" if next_offset < 0 or reason is HaltReason.OUT_OF_RANGE else f"--to-offset {next_offset}"
    words = (
        f"kafka-consumer-groups.sh --bootstrap-server {shlex.quote(','.join(kafka.bootstrap_servers))}"
        f" --group {shlex.quote(kafka.group_id)} --reset-offsets --topic {key.topic}:{key.partition} {where} --execute"
    )
    return f"{MEND[reason]}, then restart{OR_RUN}{words}"


def split_remedy(said: str) -> tuple[str, str]:
    """Take what ``remedy`` said apart: what to do, and the command; empty when there is none."""
    mend, _, command = said.partition(OR_RUN)
    return mend, command
