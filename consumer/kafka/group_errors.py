"""What a member of the consumer group protocol does about each error of its coordinator: one table."""

from __future__ import annotations

from enum import Enum

from consumer.errors import KafkaError
from consumer.settings.sections import Kafka


class Reaction(Enum):
    """What follows an error code."""

    FIND = "find the coordinator again, wait, repeat"
    JOIN = "abandon all partitions without a commit, then join with epoch 0 and the same member id"
    BEAT = "send a heartbeat, then the request again under the new epoch, with what is owned still"
    RELEASE = "leave, in case that it is this member itself that has its instance id; then wait for the one that has it"
    END = "end with a message: waiting does not change it"
    REPEAT = "wait, repeat"


FENCED_MEMBER_EPOCH = 110
REACTIONS = {
    14: Reaction.FIND,
    15: Reaction.FIND,
    16: Reaction.FIND,
    23: Reaction.END,
    24: Reaction.END,
    25: Reaction.JOIN,
    29: Reaction.END,
    30: Reaction.END,
    35: Reaction.END,
    42: Reaction.END,
    69: Reaction.JOIN,
    81: Reaction.END,
    82: Reaction.END,
    FENCED_MEMBER_EPOCH: Reaction.JOIN,
    111: Reaction.RELEASE,
    112: Reaction.END,
    113: Reaction.BEAT,
    128: Reaction.END,
}
"""Reaction to each code; every other code may pass."""

NOT_SPOKEN = (
    'kafka.group_protocol = "consumer" is not supported by these brokers: it needs Apache Kafka 4.0 or later, with'
    ' group.version 1 (kafka-features.sh) and "consumer" in group.coordinator.rebalance.protocols; set "classic", or'
    " upgrade the brokers"
)
SENTENCES = {
    23: "the members of group {group!r} use a protocol that cannot be migrated; choose another kafka.group_id",
    24: "kafka.group_id {group!r} is not a name that the broker accepts; choose another",
    29: "permission denied on a topic; grant READ and DESCRIBE on {topics}",
    30: "permission denied on the group; grant READ on group {group!r}",
    35: NOT_SPOKEN,
    42: "the coordinator takes the heartbeat for invalid; report it",
    69: (
        'kafka.group_protocol = "consumer": group {group!r} has members of the classic protocol, and the brokers do'
        " not migrate it; set group.consumer.migration.policy of the brokers to bidirectional or upgrade, or stop them"
    ),
    81: "group {group!r} is full; raise group.consumer.max.size of the brokers",
    82: (
        "kafka.group_instance_id: another member with the id {instance!r} has joined group {group!r} and taken the"
        " partitions; give each daemon a different id, or stop one"
    ),
    111: (
        "kafka.group_instance_id: another member of group {group!r} has the id {instance!r} and does not end; give each"
        " daemon a different id, or stop one"
    ),
    112: (
        "kafka.group_remote_assignor = {assignor!r} is not one of the brokers' (group.consumer.assignors); leave it"
        " out, or name one of theirs"
    ),
    128: "kafka.topic_pattern: the brokers cannot read it as a regular expression of RE2; write it without lookarounds",
}
"""What to do about the codes with which a member ends."""


def reaction(code: int, *, joining: bool = False) -> Reaction:
    """Return the reaction to an error code; a group that is not there is an error only of a ``joining`` member."""
    if code == 69 and joining:
        return Reaction.END
    return REACTIONS.get(code, Reaction.REPEAT)


def ending(code: int, text: str | None, kafka: Kafka, instance: str | None) -> KafkaError:
    """Make the error with which a member ends: our sentence, and the coordinator's own text."""
    topics = ", ".join(kafka.topics) or f"the topics of {kafka.topic_pattern!r}"
    sentence = SENTENCES.get(code, "the coordinator refused this member (error {code})").format(
        code=code, group=kafka.group_id, topics=topics, instance=instance, assignor=kafka.group_remote_assignor
    )
    return KafkaError(f"{sentence} (the coordinator: {text})" if text else sentence)
