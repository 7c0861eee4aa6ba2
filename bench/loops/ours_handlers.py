"""Handlers of this project's modes, written as a user would; ``routes.handler`` names their bound methods."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from consumer.handlers.republish import Republish
from consumer.handlers.webhook import Webhook
from consumer.instructions import Reject
from consumer.record import Record
from schemas.session import Session


class Handlers:
    """Counts events and calls ``at_first`` and ``at_last``, at the cost of one comparison an event."""

    def __init__(self) -> None:
        self.handled = 0
        self.mark = 1
        self.events = 0
        self.seconds = 0.0
        self.reject_every = 0
        self.took: list[int] = []
        self.at_first: Callable[[], None]
        self.at_last: Callable[[], None]

    def begin(self) -> None:
        if self.mark == 1:
            self.at_first()
            self.mark = self.events

    def reached(self) -> None:
        self.begin()
        if self.handled >= self.events:
            self.mark = sys.maxsize
            self.at_last()

    def inline(self, _event: Session) -> None:
        self.handled += 1
        if self.handled >= self.mark:
            self.reached()

    def record(self, _event: Session, _record: Record) -> None:
        self.handled += 1
        if self.handled >= self.mark:
            self.reached()

    async def coroutine(self, _event: Session) -> None:
        self.handled += 1
        if self.handled >= self.mark:
            self.reached()

    async def suspending(self, _event: Session) -> None:
        await asyncio.sleep(0)
        self.handled += 1
        if self.handled >= self.mark:
            self.reached()

    async def waiting(self, _event: Session) -> None:
        if self.mark == 1:
            self.begin()
        await asyncio.sleep(self.seconds)
        self.handled += 1
        if self.handled >= self.mark:
            self.reached()

    def rejecting(self, event: Session) -> None:
        self.inline(event)
        if self.handled % self.reject_every == 0:
            raise Reject("benchmark")

    def batch(self, events: list[Session]) -> None:
        self.handled += len(events)
        if self.handled >= self.mark:
            self.reached()

    def latency(self, event: Session) -> None:
        self.took.append(time.monotonic_ns() - int(event.session_label_id or 0))
        self.inline(event)


handlers = Handlers()


class CountedRepublish(Republish):
    """The shipped handler, whose events are counted."""

    async def __call__(self, events: list[Session], records: list[Record]) -> None:
        handlers.begin()
        await super().__call__(events, records)
        handlers.batch(events)


class CountedWebhook(Webhook):
    """The shipped handler, whose calls are counted."""

    async def __call__(self, event: Session, record: Record) -> None:
        handlers.begin()
        await super().__call__(event, record)
        handlers.inline(event)
