"""Heartbeats of a member: one in flight at a time, in a task that waits for nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import structlog
from aiokafka.errors import IncompatibleBrokerVersion

from consumer.errors import KafkaError
from consumer.kafka.client import instance_id
from consumer.kafka.coordinator import UNANSWERED, Coordinator
from consumer.kafka.failures import described
from consumer.kafka.group_configs import SESSION_SECONDS
from consumer.kafka.group_errors import NOT_SPOKEN, Reaction, ending, reaction
from consumer.kafka.holdings import Holdings
from consumer.kafka.membership import JOIN, Membership
from consumer.kafka.wire_requests import HeartbeatRequest
from consumer.logs import Sparingly
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")
sparing = Sparingly(log)

AGAIN_SECONDS = 0.3
"""Wait after a heartbeat that was not answered, or refused for a while."""
RELEASE_SECONDS = 10.0
"""Time beyond a session for which another member may still have this one's instance id."""
LEAVE_SECONDS = 3.0


class Heartbeats:
    """Tells the coordinator that this member lives, and what it owns; owned by the source, one for each client."""

    def __init__(self, kafka: Kafka, member: Membership, coordinator: Coordinator, holdings: Holdings) -> None:
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done at the first answer without an error."""
        self.ended: asyncio.Future[KafkaError] = asyncio.get_running_loop().create_future()
        """Done with the error with which the member ends."""
        self.session_seconds = SESSION_SECONDS
        self._kafka = kafka
        self._member = member
        self._coordinator = coordinator
        self._holdings = holdings
        self._now = asyncio.Event()
        self._sent = self._last_answered = 0
        """Numbers of the last heartbeat that was sent, and of the last that was answered."""
        self._answered = asyncio.Event()
        """Set at the next answer, and then replaced."""
        self._claiming_since: float | None = None
        """Monotonic time since which another member has the instance id."""

    def now(self) -> None:
        """Send the next heartbeat at once, or as soon as the one in flight is answered."""
        self._now.set()

    async def beat(self) -> None:
        """Return when a heartbeat that was sent after this call was answered, or this member is out of its group.

        A drain waits for its commit, and the commit for this. The join of a fenced member waits for the drain.
        """
        wanted = self._sent + 1
        self.now()
        while self._last_answered < wanted and self._member.epoch != JOIN:
            await self._answered.wait()

    async def run(self) -> None:
        """Send heartbeats until cancelled, or until the member ends."""
        while not self.ended.done():
            self._now.clear()
            waits = self._member.waits_for_calls(time.monotonic(), self.session_seconds)
            again = AGAIN_SECONDS if waits else await self._beat()
            if again is not None:
                await asyncio.sleep(again)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._member.seconds(time.monotonic())):
                    await self._now.wait()

    async def _beat(self) -> float | None:
        """Send one heartbeat; return the seconds to wait if it failed, None if it was taken."""
        request, sent = self._member.request(self._holdings.owned), time.monotonic()
        self._sent += 1
        number = self._sent
        try:
            answer = await self._coordinator.send(request)
        except IncompatibleBrokerVersion as error:
            self._end(KafkaError(f"{NOT_SPOKEN} ({error})"))
            return None
        except UNANSWERED as error:
            self._member.failed()
            sparing.info("heartbeat_failed", why=described(error))
            return AGAIN_SECONDS
        found = self._member.take(answer, sent, time.monotonic())
        self._last_answered = number
        self._answered.set()
        self._answered = asyncio.Event()
        if found is None:
            self._claiming_since = None
            if not self.joined.done():
                self.joined.set_result(None)
            return None
        if found is Reaction.RELEASE and self._member.epoch == JOIN:
            await self.leave()  # this member may have the id itself, by a join whose answer was lost
        return self._react(found, answer, sent)

    def _react(self, found: Reaction, answer: Any, now: float) -> float | None:
        code = answer.error_code
        sparing.info("heartbeat_refused", code=code, reaction=found.name.lower())
        if found is Reaction.FIND:
            self._coordinator.moved()
        elif found is Reaction.RELEASE:
            self._claiming_since = self._claiming_since or now
            if now - self._claiming_since > self.session_seconds + RELEASE_SECONDS:
                found = Reaction.END
        if found is Reaction.END:
            self._end(ending(code, answer.error_message, self._kafka, instance_id(self._kafka)))
            return None
        return AGAIN_SECONDS

    def _end(self, error: KafkaError) -> None:
        """End this member; the task of the heartbeats returns."""
        if not self.ended.done():
            self.ended.set_result(error)
        self._now.set()

    async def leave(self) -> None:
        """Leave the group, within a time limit; what fails is ignored, because the session ends by itself.

        A member that has had no answer leaves too: the coordinator may have let it join, or may know it from the client
        before.
        """
        if not self._member.known:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                while True:
                    if await self._is_heard(self._member.leaving()):
                        return
                    await asyncio.sleep(AGAIN_SECONDS)

    async def _is_heard(self, leave: HeartbeatRequest) -> bool:
        """Send a leave; return whether the coordinator has heard it, whatever it answered."""
        try:
            answer = await self._coordinator.send(leave)
        except UNANSWERED as error:
            return isinstance(error, IncompatibleBrokerVersion)
        if reaction(answer.error_code) is Reaction.FIND:
            self._coordinator.moved()
            return False
        self._member.known = False
        return True
