"""Every halt explains how to end it: what to repair, and a command that a shell accepts."""

from __future__ import annotations

import shlex

import pytest

from consumer.observe.remedy import DRAINS, MOST_NAMED, OR_RUN, joint_remedy, name_passed, remedy, reset_command
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

KEY = TopicPartition("orders", 3)
COMMAND = "kafka-consumer-groups.sh --bootstrap-server a:9092,b:9092 --group mine --reset-offsets --topic orders:3"
KAFKA = Kafka(bootstrap_servers=["a:9092", "b:9092"], group_id="mine")


@pytest.mark.parametrize(
    ("reason", "mend", "where"),
    [
        (HaltReason.NO_DEAD_LETTER, "dead_letter.topic", "--to-offset 12"),
        (HaltReason.CORRUPT_BATCH, "the batch cannot be read", "--to-offset 12"),
        (HaltReason.BATCH_TOO_LARGE, "kafka.max_batch_bytes", "--to-offset 12"),
        (HaltReason.OUT_OF_RANGE, "kafka.out_of_range", "--to-earliest"),
        (HaltReason.NO_OFFSET, "kafka.offset_reset", "--to-earliest"),
    ],
)
def test_a_remedy_names_a_setting_and_a_command(reason: HaltReason, mend: str, where: str) -> None:
    """A remedy names the setting to change and a command past the halt, or to the start without a known offset."""
    said = remedy(KAFKA, KEY, reason, -1 if reason is HaltReason.NO_OFFSET else 12)
    assert mend in said
    assert said.endswith(f"stop all members and run: {COMMAND} {where} --execute")


def test_a_blown_fuse_has_no_command() -> None:
    """A blown fuse has no command, because moving past one record does not help."""
    said = remedy(KAFKA, KEY, HaltReason.FUSE, 12)
    assert "kafka-consumer-groups" not in said
    assert said.endswith("then restart")


@pytest.mark.parametrize("reason", HaltReason)
def test_every_halt_reason_has_a_remedy(reason: HaltReason) -> None:
    """Every halt reason has a sentence."""
    assert remedy(KAFKA, KEY, reason, 0)


def test_what_a_command_passes_is_named() -> None:
    """A command names every record without an outcome that it passes; too many records have no command."""
    text = f"mend it{OR_RUN}move"
    assert name_passed(text, []) == text
    assert name_passed("mend it", [3]) == "mend it"
    named = "mend it; the command also passes records without an outcome, at offset 3, 5"
    assert name_passed(text, [3, 5]) == f"{named}{OR_RUN}move"
    assert "run" not in name_passed(text, range(7, 8 + MOST_NAMED))


def test_a_name_is_quoted() -> None:
    """A group's name may hold any character; the command is quoted for the shell."""
    kafka = Kafka(bootstrap_servers=["a:9092"], group_id="my group; rm -rf 'x'")
    words = shlex.split(remedy(kafka, KEY, HaltReason.CORRUPT_BATCH, 5).partition("run: ")[2])
    assert words[words.index("--group") + 1] == "my group; rm -rf 'x'"
    assert words[-1] == "--execute"


def a_halt(next_offset: int, *, reason: HaltReason = HaltReason.CORRUPT_BATCH, text: str = "", undone: int = 0) -> Halt:
    return Halt(reason, next_offset - 1, "broken", text, 0.0, next_offset, tuple(range(undone)))


@pytest.mark.parametrize(
    ("reason", "offsets", "expected"),
    [
        (HaltReason.CORRUPT_BATCH, {7: 12}, "--topic orders:7 --to-offset 12"),
        (HaltReason.CORRUPT_BATCH, {7: 12, 2: 12}, "--topic orders:2,7 --to-offset 12"),
        (HaltReason.OUT_OF_RANGE, {7: 12, 2: 9}, "--topic orders:2,7 --to-earliest"),
        (HaltReason.NO_OFFSET, {7: -1, 2: -1}, "--topic orders:2,7 --to-earliest"),
        (HaltReason.BATCH_TOO_LARGE, {7: 12, 2: 9}, "--from-file offsets.csv"),
    ],
)
def test_one_command_for_several_partitions(reason: HaltReason, offsets: dict[int, int], expected: str) -> None:
    """One command moves all partitions, with a file of offsets where these differ."""
    command = reset_command(KAFKA, "orders", reason, offsets)
    assert f" --reset-offsets {expected} --execute" in command
    rows = "printf '%s\\n' orders,2,9 orders,7,12 > offsets.csv && "
    assert command.startswith(rows) == ("offsets.csv" in expected)


def test_halts_of_a_topic_have_one_remedy() -> None:
    """The remedy of several halts names records without an outcome by partition, and leaves out where too many are."""
    halts = {1: a_halt(5), 2: a_halt(5, undone=2), 3: a_halt(8, undone=MOST_NAMED + 1)}
    mend, command = joint_remedy(KAFKA, "orders", halts)
    assert "by partition and offset: 2: 0, 1;" in mend
    assert "more than 20 records have no outcome in partition 3" in mend
    assert "--topic orders:1,2 --to-offset 5" in command
    assert joint_remedy(KAFKA, "orders", {3: halts[3]})[1] == ""


def test_a_halt_that_drains_has_no_command_yet() -> None:
    """While one of the partitions finishes what was started, no command is known."""
    assert joint_remedy(KAFKA, "orders", {1: a_halt(5), 2: a_halt(5, text=DRAINS)}) == (DRAINS, "")


def test_a_blown_fuse_of_several_partitions_has_no_command() -> None:
    """The fuse stops all partitions, and moving past a record helps none."""
    mend, command = joint_remedy(KAFKA, "orders", {1: a_halt(5, reason=HaltReason.FUSE)})
    assert (mend.endswith("then restart"), command) == (True, "")
