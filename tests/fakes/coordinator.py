"""A coordinator of the consumer group protocol in this process: it assigns and fences as Apache Kafka does.

It takes the requests of ``Coordinator.send``. What a test scripts comes first: an error code, an answer of the test's,
or an answer that is lost before or after the coordinator has acted.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from aiokafka.errors import KafkaConnectionError

from consumer.kafka.membership import Place
from consumer.kafka.wire import NO_TAGS
from consumer.kafka.wire_questions import TopicsRequest
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest

UNKNOWN_MEMBER, FENCED_EPOCH, UNRELEASED_INSTANCE, STALE_EPOCH, NOT_COORDINATOR = 25, 110, 111, 113, 16
Script = int | str | Callable[[Any], Any] | None
"""An error code; ``before`` or ``after``: the answer is lost, and the coordinator has, or has not, acted; a function
that returns an answer, or a coroutine with one; None for the usual answer."""


class Commit(NamedTuple):
    """One partition's offset in a commit that was taken."""

    member: str
    epoch: int
    topic: str
    partition: int
    offset: int


@dataclass
class Member:
    """A member as the coordinator has it."""

    id: str
    epoch: int = 0
    before: int = 0
    """The epoch before the last change."""
    assigned: set[Place] = field(default_factory=set)
    revoked: set[Place] = field(default_factory=set)
    """What it is to let go of, and has not acknowledged."""
    target: set[Place] = field(default_factory=set)


class FakeCoordinator:
    """One group; every fault is an attribute that a test sets."""

    def __init__(self, topic: str = "t", partitions: int = 4) -> None:
        self.topics: dict[UUID, str] = {UUID(int=1): topic}
        self.places: set[Place] = {Place(UUID(int=1), each) for each in range(partitions)}
        self.members: dict[str, Member] = {}
        self.epoch = 0
        self.interval_ms = 10
        self.strict = True
        """Whether a commit needs exactly the member's epoch, as before Kafka 4.3."""
        self.offsets: dict[tuple[str, int], int] = {}
        self.commits: list[Commit] = []
        self.requests: list[Any] = []
        """The fields of all heartbeats."""
        self.script: dict[type, deque[Script]] = {
            kind: deque() for kind in (HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest, TopicsRequest)
        }
        self.moves = 0
        """How often a client looked for the coordinator again."""

    def moved(self) -> None:
        """Note that a client looks for the coordinator again."""
        self.moves += 1

    async def send(self, request: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(request, HeartbeatRequest):
            self.requests.append(request.fields)
        scripts = self.script[type(request)]
        script = scripts.popleft() if scripts else None
        if script == "before":
            raise KafkaConnectionError("lost before")
        answer = self._scripted(request, script) if script not in (None, "after") else self._usual(request)
        if inspect.isawaitable(answer):
            answer = await answer
        await asyncio.sleep(0)
        if script == "after":
            raise KafkaConnectionError("lost after")
        return answer

    def _scripted(self, request: Any, script: Script) -> Any:
        if callable(script):
            return script(request)
        if isinstance(request, HeartbeatRequest):
            return heartbeat_answer(code=script)
        if isinstance(request, OffsetCommitRequest):
            rows: Any = [(topic, [(row[0], script, {}) for row in rows], {}) for topic, rows, _ in request.fields[4]]
            return request.STRUCT.RESPONSE_TYPE(0, rows, {})
        return request.STRUCT.RESPONSE_TYPE(0, [("g", [], script, {})], {})

    def _usual(self, request: Any) -> Any:
        usual = {HeartbeatRequest: self._heartbeat, OffsetCommitRequest: self._commit, OffsetFetchRequest: self._fetch}
        return usual[type(request)](request)

    def _heartbeat(self, request: Any) -> Any:
        _, member_id, epoch, instance, _, timeout, topics, regex, _, listed = request.fields
        owned = None if listed is None else {Place(topic, each) for topic, rows, _ in listed for each in rows}
        if epoch < 0:
            self.remove(member_id)
            return heartbeat_answer(epoch=epoch)
        member = self.members.get(member_id)
        if epoch == 0:
            if owned != set() or (not topics and not regex):
                return heartbeat_answer(code=42)
            if instance is not None and member is not None:
                return heartbeat_answer(code=UNRELEASED_INSTANCE)
            if member is None:  # one that is known keeps its place, and has let go of what it was to
                member = self.members[member_id] = Member(member_id)
                self.change()
        if member is None:
            return heartbeat_answer(code=UNKNOWN_MEMBER)
        if epoch not in (0, member.epoch) and not (
            epoch == member.before and owned is not None and owned <= member.assigned
        ):
            return heartbeat_answer(code=FENCED_EPOCH)
        before = set(member.assigned)
        self._advance(member, owned)
        full = epoch == 0 or (timeout != -1 and owned is not None)
        assignment = member.assigned if full or before != member.assigned else None
        return heartbeat_answer(epoch=member.epoch, interval_ms=self.interval_ms, assignment=assignment)

    def _advance(self, member: Member, owned: set[Place] | None) -> None:
        """Lead a member towards its target, as far as it has let go, and as others have.

        What is taken away and is not in its list is free at once: the member has let go of it, or never began it.
        """
        if member.revoked:
            if owned is None or owned & member.revoked:
                return
            member.revoked = set()
        if gone := member.assigned - member.target:
            member.assigned -= gone
            if owned is None or owned & gone:
                member.revoked = gone
                return
        taken = {
            place for each in self.members.values() if each is not member for place in each.assigned | each.revoked
        }
        member.assigned |= member.target - taken
        self._to_epoch(member)

    def _to_epoch(self, member: Member) -> None:
        if member.epoch != self.epoch:
            member.before, member.epoch = member.epoch, self.epoch

    def change(self) -> None:
        """Begin a new epoch: share the partitions out again, each member keeps what it can."""
        self.epoch += 1
        members = sorted(self.members.values(), key=lambda each: each.id)
        left = set(self.places)
        most = -(-len(left) // max(1, len(members)))
        for each in members:
            kept = sorted((each.assigned or each.target) & left)[:most]
            each.target = set(kept)
            left -= each.target
        for place in sorted(left):
            if members:
                min(members, key=lambda each: len(each.target)).target.add(place)

    def retarget(self, **targets: Iterable[int]) -> None:
        """Begin a new epoch with these targets, by member id, as partitions of the first topic."""
        self.epoch += 1
        for name, numbers in targets.items():
            self.members[name].target = {Place(UUID(int=1), each) for each in numbers}

    def remove(self, member_id: str) -> None:
        """Throw a member out, or let it leave: its partitions are free at once."""
        if self.members.pop(member_id, None) is not None:
            self.change()

    def _refusal(self, member_id: str, epoch: int) -> int:
        member = self.members.get(member_id)
        if member is None:
            return UNKNOWN_MEMBER
        known = (member.epoch,) if self.strict else (member.before, member.epoch)
        return 0 if epoch in known else STALE_EPOCH

    def _commit(self, request: Any) -> Any:
        _, epoch, member_id, _, topics = request.fields
        code = self._refusal(member_id, epoch)
        for topic, rows, _ in topics if not code else ():
            for number, offset, *_ in rows:
                self.offsets[topic, number] = offset
                self.commits.append(Commit(member_id, epoch, topic, number, offset))
        return self._scripted(request, code)

    def _fetch(self, request: Any) -> Any:
        ((_, member_id, epoch, topics, _),) = request.fields[0]
        if code := self._refusal(member_id, epoch):
            return self._scripted(request, code)
        rows: Any = [
            (topic, [(each, self.offsets.get((topic, each), -1), -1, "", 0, {}) for each in numbers], {})
            for topic, numbers, _ in topics
        ]
        return request.STRUCT.RESPONSE_TYPE(0, [("g", rows, 0, {})], {})

    def known(self, topic_id: UUID) -> str:
        """Return the name of a topic, or its id, in place of ``TopicIds``."""
        return self.topics.get(topic_id, str(topic_id))

    async def names(self, ids: Iterable[UUID]) -> dict[UUID, str]:
        """Return the names of topics, in place of ``TopicIds``."""
        await asyncio.sleep(0)
        scripts = self.script[TopicsRequest]
        script = scripts.popleft() if scripts else None
        if script == "before":
            raise KafkaConnectionError("lost")
        return {each: self.topics[each] for each in ids if each in self.topics} if script is None else {}


def heartbeat_answer(
    code: Any = 0, epoch: int = 0, interval_ms: int = 10, assignment: Iterable[Place] | None = None
) -> Any:
    """Return an answer to a heartbeat; partitions are as given, also twice."""
    rows: Any = None if assignment is None else ([(topic, [number], NO_TAGS) for topic, number in assignment], NO_TAGS)
    text = "why" if code else None
    return HeartbeatRequest.STRUCT.RESPONSE_TYPE(0, code, text, "m", epoch, interval_ms, rows, NO_TAGS)
