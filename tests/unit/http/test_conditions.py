"""Halts and holds in the status: put together, with their place, and with what ends them."""

from __future__ import annotations

import pytest

from consumer.http.conditions import HaltedPartition
from consumer.observe.remedy import HOLD_ENDS
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt, Hold
from consumer.partition.state import Partition
from consumer.record import TopicPartition
from tests.unit.http.scene import WALL, Scene


@pytest.mark.parametrize("reason", HaltReason)
def test_a_halt_and_its_end(reason: HaltReason) -> None:
    """A halt has its reason, place and remedy and, if one helps, the command that moves past it."""
    scene = Scene()
    partition = scene.owns(2)
    partition.halt = Halt(reason, 100, "something is wrong", "mended", WALL - 60, 101)
    (halt,) = scene.read().halts
    assert (halt.topic, halt.reason, halt.since) == ("session-events", reason.value, WALL - 60)
    assert halt.partitions == [HaltedPartition(2, 100, "something is wrong", WALL - 60)]
    assert halt.mend.endswith(", then restart")
    assert "kafka-consumer-groups" not in halt.mend
    assert halt.command.startswith("kafka-consumer-groups.sh ") == (reason is not HaltReason.FUSE)


def test_halts_of_a_topic_have_one_command() -> None:
    """Halts of one topic and reason are one entry since the first; the command moves every partition past its cause."""
    scene = Scene()
    for number in (4, 2):
        halt = Halt(HaltReason.CORRUPT_BATCH, 100 + number, "broken", "mended", WALL - number, 101 + number)
        scene.owns(number).halt = halt
    scene.owns(1).halt = Halt(HaltReason.NO_OFFSET, -1, "none", "mended", WALL)
    no_offset, corrupt = scene.read().halts
    assert (corrupt.reason, corrupt.since) == ("corrupt_batch", WALL - 4)
    assert [(each.partition, each.offset) for each in corrupt.partitions] == [(2, 102), (4, 104)]
    assert "session-events,2,103 session-events,4,105 > offsets.csv" in corrupt.command
    assert [(each.partition, each.offset) for each in no_offset.partitions] == [(1, None)]
    assert "--topic session-events:1 --to-earliest" in no_offset.command


def test_holds_are_put_together() -> None:
    """Thousands of records that wait for the same thing are one entry: their number, the lowest, and since when."""
    scene = Scene()
    partition = scene.owns(1)
    for offset in range(100, 1100):
        partition.holds.add(Hold("pause", "voice", offset, WALL - offset, "OSError (a.py:3)", offset, WALL + offset))
    partition.holds.add(Hold("retry", "voice", 100, WALL))
    partition.holds.add(Hold("error", "voice", 100, WALL))
    error, pause, retry = scene.read().holds
    assert (pause.kind, pause.records, pause.offset, pause.since) == ("pause", 1000, 100, WALL - 1099)
    assert (pause.error, pause.attempts, pause.next_at) == ("OSError (a.py:3)", 100, WALL + 100)
    assert (retry.kind, retry.records, error.kind) == ("retry", 1, "error")
    assert (pause.ends, retry.ends, error.ends) == (HOLD_ENDS["pause"], HOLD_ENDS["retry"], "")


@pytest.mark.parametrize("kind", [*HOLD_ENDS, "error", "timeout", "reject"])
def test_what_is_a_hold(kind: str) -> None:
    """The page shows as holds what the metric ``holding`` counts: waits without a limit."""
    partition = Partition(TopicPartition("t", 0), 1)
    hold = Hold(kind, "voice", 1, WALL)
    partition.holds.add(hold)
    assert bool(partition.held) == (kind in HOLD_ENDS)
