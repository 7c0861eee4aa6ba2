"""Advice by kind of trouble: one sentence of what to do, and the heading of the runbook that says more. Pure."""

from __future__ import annotations

from typing import NamedTuple

from consumer.http import wording
from consumer.http.conditions import HaltStatus
from consumer.observe.remedy import FIXES
from consumer.outcome import HaltReason

CHECK = "session-consumer check -c settings.toml --set http.port=0"
"""Tests settings, brokers, topics and permissions beside a running daemon."""


DLQ_LIST = "session-consumer dlq list -c settings.toml"
"""Counts dead letters by topic, route, reason and code."""


class Advice(NamedTuple):
    """What to do. ``{route}`` stands for the route concerned."""

    todo: str
    runbook: str
    command: str = ""


HALT = "SessionConsumerHalted"
ONLY_WAY = f"{FIXES[HaltReason.CORRUPT_BATCH]}, then restart"
"""Advice of the remedy for a cause that no restart can mend."""
FUSE = (
    "Run the command to see why most records became dead letters, repair that, then restart. If bad records are left in"
    " the topic, set dead_letter.limit_ratio = 1 until they are dead-lettered."
)

_BY_ITSELF = "The daemon replaces its Kafka client by itself; run the command to see what the brokers answer."
_NOT_CONSUMING = "SessionConsumerNotConsuming"

STALLS = {
    "loop": Advice(
        "Restart this daemon; then set threaded = true for the handler, or have it await what it waits for.",
        "SessionConsumerLoopBlocked",
    ),
    "call": Advice("Restart this daemon; then set timeout_seconds for route {route}.", _NOT_CONSUMING),
    "earlier_epoch": Advice("Restart this daemon; then set timeout_seconds for route {route}.", _NOT_CONSUMING),
    "flush": Advice("Look at the disk or database that the handler flushes to, then restart.", _NOT_CONSUMING),
    "position": Advice(_BY_ITSELF, _NOT_CONSUMING, CHECK),
    "data": Advice(_BY_ITSELF, _NOT_CONSUMING, CHECK),
    "commit": Advice(_BY_ITSELF, _NOT_CONSUMING, CHECK),
    "group": Advice(_BY_ITSELF, _NOT_CONSUMING, CHECK),
}
"""By kind of stall."""

OTHER_STALL = Advice("Keep the stacks of log event daemon_stalled, then restart this daemon.", _NOT_CONSUMING)

_REPAIR_CALLED = "Repair what route {route} calls; the records are then handled by themselves, and none is lost."

HOLDS = {
    "pause": Advice(_REPAIR_CALLED, "SessionConsumerHolding"),
    "retry": Advice(_REPAIR_CALLED, "SessionConsumerHolding"),
    "dead_letter": Advice(
        "Have the dead-letter topic accept writes; the command names what is missing.", "SessionConsumerHolding", CHECK
    ),
    "group": Advice(
        "Look at the brokers and the network; the hold ends with the group's next answer.",
        "SessionConsumerHolding",
        CHECK,
    ),
}
"""By kind of hold."""

POLICY_RETRY = Advice(
    "Repair what route {route} calls, before the last attempt fails and the record becomes a dead letter.",
    "SessionConsumerRetrying",
)

FAILING_ROUTE = Advice(
    "Repair what route {route} calls; the last failures name the class and the place.", "SessionConsumerRetrying"
)

_REDRIVE = "redrive the letters when it is repaired"

LETTERS = {
    "undecodable": Advice(
        f"Run the command, find out what the producer changed, and {_REDRIVE}.", "SessionConsumerDeadLettering"
    ),
    "bad_header": Advice(
        f"Run the command, find out what the producer changed, and {_REDRIVE}.", "SessionConsumerDeadLettering"
    ),
    "too_large": Advice(
        "Run the command; raise delivery.max_record_bytes if such records are valid, and redrive the letters.",
        "SessionConsumerDeadLettering",
    ),
}
"""By reason of a dead letter, for records that reached no handler."""

HANDLER_LETTERS = Advice(
    f"Run the command, look at the handler of route {{route}}, and {_REDRIVE}.", "SessionConsumerDeadLettering"
)

SILENT = Advice(
    "Bring the brokers or the network back; a restart is not needed and does not help.",
    "SessionConsumerEndOffsetsStale",
    CHECK,
)
SILENT_AT_START = Advice(
    "Bring the brokers or the network back; the command says what is wrong with each. Without an answer the process"
    " exits with 69 after kafka.start_timeout_seconds.",
    "SessionConsumerNotRunning",
    CHECK,
)
REBALANCING = Advice("Find the member that keeps the group waiting, and restart it.", "SessionConsumerRebalancing")
REBALANCING_OFTEN = Advice(
    "Find the member that comes and goes, or that is not heard, and repair it; its log has the reason.",
    "SessionConsumerRebalancing",
)
NOT_READY = Advice("Run the command, and repair what it names.", "SessionConsumerNotRunning", CHECK)
REBUILDING = Advice(
    "Wait; if it happens again, look for the reason in log event kafka_client_lost.", "SessionConsumerClientRebuilt"
)
NO_PARTITIONS = Advice("Run the command, and check that the topics exist.", "SessionConsumerNoPartitions", CHECK)
GROWING_BY_WAITS = Advice(
    "End the halt, hold or stall first; the records behind it are part of this lag.", "SessionConsumerFallingBehind"
)
GROWING = Advice(
    "Start more members, up to one for each partition; if the handlers are the limit, speed up what they call.",
    "SessionConsumerFallingBehind",
)


def way_on(halt: HaltStatus) -> tuple[str, str]:
    """Return what ends a halt, and the command. A corrupt batch can only be passed; other causes can be mended."""
    go_past = "stop all members of the group, run the command, which moves the group past the cause, and start them."
    if halt.reason == HaltReason.FUSE.value:
        return FUSE, DLQ_LIST
    if not halt.command:
        return wording.sentence(halt.mend), ""
    if halt.mend.startswith(ONLY_WAY):
        rest = wording.sentence(halt.mend.removeprefix(ONLY_WAY).lstrip("; "))
        return f"{wording.sentence(go_past)} {rest}".strip(), halt.command
    return f"{wording.sentence(halt.mend)} Or {go_past}", halt.command
