"""Remedies: what a person does to end a halt, and what ends a hold."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from consumer.outcome import HaltReason
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

FIXES = {
    HaltReason.NO_DEAD_LETTER: "fix the handler, or have a dead-letter topic that accepts it (dead_letter.topic)",
    HaltReason.OUT_OF_RANGE: "set kafka.out_of_range to earliest or latest",
    HaltReason.CORRUPT_BATCH: "the batch cannot be read; move the group past it",
    HaltReason.BATCH_TOO_LARGE: "set a larger kafka.max_batch_bytes",
    HaltReason.FUSE: "find out why most records fail",
    HaltReason.NO_OFFSET: "set kafka.offset_reset to earliest or latest",
}

DRAINS = "what was started is finished first; what ends the halt is known then"
"""Stands for the remedy until the drain of a halted partition has ended."""

MOST_NAMED = 20
"""Records without an outcome that a command may pass by name."""

OR_RUN = "; or stop all members and run: "

HOLD_ENDS = {
    "retry": "the handler asked to be called again later; the hold ends when the call succeeds",
    "pause": "what the handler needs is down; the hold ends when the same record is handled",
    "dead_letter": "Kafka does not accept the dead letter; the hold ends when the brokers acknowledge it",
    "group": "heartbeats are not answered; the hold ends with the next answer, or with a rebalance",
}
"""What ends a hold, by its kind. A person need only repair what is down."""


def remedy(kafka: Kafka, key: TopicPartition, reason: HaltReason, next_offset: int) -> str:
    """Return what a person must do before a restart, and the command that moves the group past the cause.

    ``next_offset`` is the first offset after the cause of the halt. Kafka moves a group only while it has no member.
    """
    if reason is HaltReason.FUSE:  # skipping one record would not help
        return f"{FIXES[reason]}, then restart"
    where = "--to-earliest" if next_offset < 0 or reason is HaltReason.OUT_OF_RANGE else f"--to-offset {next_offset}"
    command = (
        f"kafka-consumer-groups.sh --bootstrap-server {shlex.quote(','.join(kafka.bootstrap_servers))}"
        f" --group {shlex.quote(kafka.group_id)} --reset-offsets --topic {key.topic}:{key.partition} {where} --execute"
    )
    return f"{FIXES[reason]}, then restart{OR_RUN}{command}"


def name_passed(text: str, undone: Sequence[int]) -> str:
    """Have the text of ``remedy`` name the records without an outcome that its command would pass, by their offsets.

    Too many to name: the text has no command. After a restart the daemon handles those records first.
    """
    fix, command = split_remedy(text)
    if not undone or not command:
        return text
    if len(undone) > MOST_NAMED:
        return f"{fix}; more than {MOST_NAMED} records, from offset {undone[0]} on, have no outcome: none may be passed"
    offsets = ", ".join(map(str, undone))
    return f"{fix}; the command also passes records without an outcome, at offset {offsets}{OR_RUN}{command}"


def split_remedy(text: str) -> tuple[str, str]:
    """Split the text of ``remedy`` into what to do and the command, which is empty when there is none."""
    fix, _, command = text.partition(OR_RUN)
    return fix, command
