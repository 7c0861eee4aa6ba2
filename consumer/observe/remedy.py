"""Remedies: what a person does to end a halt, and what ends a hold."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from consumer.outcome import HaltReason
from consumer.partition.hold import Halt
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

FIXES = {
    HaltReason.NO_DEAD_LETTER: (
        "have a dead-letter topic that accepts it (dead_letter.topic), or fix the handler if one failed"
    ),
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
    return (
        f"{FIXES[reason]}, then restart{OR_RUN}{reset_command(kafka, key.topic, reason, {key.partition: next_offset})}"
    )


def reset_command(kafka: Kafka, topic: str, reason: HaltReason, next_offsets: Mapping[int, int]) -> str:
    """Return the command that moves the group to an offset in each of these partitions of a topic."""
    offsets, partitions = set(next_offsets.values()), ",".join(map(str, sorted(next_offsets)))
    before, what = "", f"--topic {topic}:{partitions}"
    if reason is HaltReason.OUT_OF_RANGE or min(offsets) < 0:
        what += " --to-earliest"
    elif len(offsets) == 1:
        what += f" --to-offset {offsets.pop()}"
    else:
        rows = " ".join(f"{topic},{partition},{offset}" for partition, offset in sorted(next_offsets.items()))
        before, what = f"printf '%s\\n' {rows} > offsets.csv && ", "--from-file offsets.csv"
    servers, group = shlex.quote(",".join(kafka.bootstrap_servers)), shlex.quote(kafka.group_id)
    tool = f"kafka-consumer-groups.sh --bootstrap-server {servers} --group {group}"
    return f"{before}{tool} --reset-offsets {what} --execute"


def joint_remedy(kafka: Kafka, topic: str, halts: Mapping[int, Halt]) -> tuple[str, str]:
    """Return what to do about halts of one topic and reason, by partition, and the command that passes all causes.

    The command is empty when none helps. A partition with too many records without an outcome is left out of it; while
    a partition still drains, there is none.
    """
    reason = next(iter(halts.values())).reason
    mend = f"{FIXES[reason]}, then restart"
    if reason is HaltReason.FUSE:
        return mend, ""
    if any(halt.remedy == DRAINS for halt in halts.values()):
        return DRAINS, ""
    kept = sorted(number for number, halt in halts.items() if len(halt.undone) > MOST_NAMED)
    passed = {number: halt for number, halt in halts.items() if number not in kept}
    undone = "; ".join(f"{number}: {_listed(halt.undone)}" for number, halt in sorted(passed.items()) if halt.undone)
    if undone:
        mend += f"; the command also passes records without an outcome, by partition and offset: {undone}"
    if kept:
        mend += (
            f"; more than {MOST_NAMED} records have no outcome in partition {_listed(kept)}: none may be passed there"
        )
    if not passed:
        return mend, ""
    return mend, reset_command(kafka, topic, reason, {number: halt.next_offset for number, halt in passed.items()})


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def name_passed(text: str, undone: Sequence[int]) -> str:
    """Have the text of ``remedy`` name the records without an outcome that its command would pass, by their offsets.

    Too many to name: the text has no command. After a restart the daemon handles those records first.
    """
    fix, command = split_remedy(text)
    if not undone or not command:
        return text
    if len(undone) > MOST_NAMED:
        return f"{fix}; more than {MOST_NAMED} records, from offset {undone[0]} on, have no outcome: none may be passed"
    passes = f"the command also passes records without an outcome, at offset {_listed(undone)}"
    return f"{fix}; {passes}{OR_RUN}{command}"


def split_remedy(text: str) -> tuple[str, str]:
    """Split the text of ``remedy`` into what to do and the command, which is empty when there is none."""
    fix, _, command = text.partition(OR_RUN)
    return fix, command
