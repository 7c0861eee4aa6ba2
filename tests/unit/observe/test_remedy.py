"""Every halt explains how to end it: what to repair, and a command that a shell accepts."""

from __future__ import annotations

import shlex

import pytest

from consumer.observe.remedy import MOST_NAMED, OR_RUN, name_passed, remedy
from consumer.outcome import HaltReason
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
