"""Stretches of topics: the offsets between two places, and a group that stores how far a stretch was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from consumer.errors import KafkaError
from consumer.kafka.client import committed_offsets, open_reader
from consumer.kafka.probe import answered, connected_admin, probe_topics
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

COMPLETE = "complete"
"""Metadata of the offsets of a stretch that was read to its end."""
IN_USE = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
"""Refusals of a commit from outside of a group that has members."""


class Place(NamedTuple):
    """A place in every partition: an offset, or a time in milliseconds since 1970; neither is the end."""

    offset: int | None = None
    time_ms: int | None = None


class Bounds(NamedTuple):
    """The stretch of one partition: offsets from ``begin`` to below ``end``."""

    begin: int
    end: int
    first: int
    """The first offset that the broker has."""


Stretch = Mapping[TopicPartition, Bounds]


async def find_stretch(kafka: Kafka, numbers: Collection[int], begin: Place, end: Place) -> Stretch:
    """Ask the brokers for the offsets between two places in ``kafka.topics``; ``numbers`` names partitions, if any.

    A time stands for the first record of that time or later. Raises KafkaUnreachableError, and KafkaError for topics
    and partitions that do not exist.
    """
    counts = await probe_topics(kafka)
    for number in numbers:
        if number >= max(counts.values()):
            raise KafkaError(
                f"--partition {number}: {', '.join(counts)} have partitions 0 to {max(counts.values()) - 1}"
            )
    keys = [
        aiokafka.TopicPartition(topic, number)
        for topic, count in counts.items()
        for number in range(count)
        if not numbers or number in numbers
    ]
    async with open_reader(kafka) as reader:
        firsts = await answered(kafka, lambda: reader.beginning_offsets(keys))
        lasts = await answered(kafka, lambda: reader.end_offsets(keys))

        async def offsets(place: Place) -> dict[aiokafka.TopicPartition, int]:
            if place.time_ms is None:
                return {key: lasts[key] if place.offset is None else place.offset for key in keys}
            times = dict.fromkeys(keys, place.time_ms)
            found = await answered(kafka, lambda: reader.offsets_for_times(dict(times)))
            return {key: lasts[key] if found.get(key) is None else found[key].offset for key in keys}

        begins, ends = await offsets(begin), await offsets(end)
    return {
        TopicPartition(*key): Bounds(max(begins[key], firsts[key]), min(ends[key], lasts[key]), firsts[key])
        for key in keys
    }


async def begin_stretch(kafka: Kafka, stretch: Stretch, *, restart: bool) -> dict[TopicPartition, int]:
    """Return the offset to go on with by partition; those that ``kafka.group_id`` has if it was not read to its end.

    Otherwise, and with ``restart``, the group's offsets are set to the begin of the stretch. Raises KafkaError if
    members of the group are at work then. The group may have lower offsets than these: a partition that was added
    while the stretch was read begins at its first offset, and one whose records the broker has deleted is behind.
    """
    begins = {key: bounds.begin for key, bounds in stretch.items()}
    async with connected_admin(kafka) as admin:
        found = await answered(kafka, lambda: _committed(admin, kafka.group_id, stretch))
        known = {key: offset for key, (offset, _) in found.items() if offset >= 0}
        complete = any(metadata == COMPLETE for _, metadata in found.values())  # of all partitions that were there
        if known and not complete and not restart:
            missing = {key: begin for key, begin in begins.items() if key not in known}
            if missing:
                await answered(kafka, lambda: _commit(admin, kafka.group_id, missing, ""))
            return {key: max(begin, known.get(key, begin)) for key, begin in begins.items()}
        await answered(kafka, lambda: _commit(admin, kafka.group_id, begins, ""))
        return begins


async def end_stretch(kafka: Kafka, stretch: Stretch) -> bool:
    """Note that the stretch was read to its end, if it was; the next one then begins again. Return whether it was."""
    async with connected_admin(kafka) as admin:
        found = await answered(kafka, lambda: _committed(admin, kafka.group_id, stretch))
        if any(found[key][0] < bounds.end for key, bounds in stretch.items()):
            return False
        offsets = {key: offset for key, (offset, _) in found.items()}
        try:
            await answered(kafka, lambda: _commit(admin, kafka.group_id, offsets, COMPLETE))
        except KafkaError:  # another member is about to end, and notes it then
            return False
    return True


async def _committed(
    admin: AIOKafkaAdminClient, group: str, keys: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    found = await committed_offsets(admin, group, [aiokafka.TopicPartition(*key) for key in keys])
    return {TopicPartition(*key): (each.offset, each.metadata) for key, each in found.items()}


async def _commit(admin: AIOKafkaAdminClient, group: str, offsets: Mapping[TopicPartition, int], metadata: str) -> None:
    """Commit offsets of a group without members. Raises KafkaError if it has some, and the answer's other errors."""
    topics: dict[str, list[tuple[int, int, str]]] = {}
    for (topic, partition), offset in offsets.items():
        topics.setdefault(topic, []).append((partition, offset, metadata))
    coordinator = await admin.find_coordinator(group)
    request = OffsetCommitRequest(group, -1, "", -1, list(topics.items()))
    answer: Any = await admin._send_request(request, coordinator)
    for code in {code for _, rows in answer.topics for _, code in rows if code}:
        if for_code(code) in IN_USE:
            raise KafkaError(
                f"group {group!r} has members: another replay of this stretch is at work; wait for it, or stop it. One"
                " that was killed is a member for kafka.session_timeout_seconds"
            )
        raise for_code(code)
