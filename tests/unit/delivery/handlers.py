"""Handlers for the delivery tests: they wait, fail or note calls as a test asks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from consumer import Record
from consumer.dead_letters.cause import Cause
from consumer.outcome import Outcome
from consumer.record import TopicPartition
from tests.unit.delivery.engines import Bench

OVERLAPPING = ("key", "unordered")


class Gate:
    """A handler whose calls wait until they are released; it notes which calls began, run and ended."""

    def __init__(self, *passing: int) -> None:
        self.begun: list[int] = []
        self.running: list[int] = []
        self.ended: list[int] = []
        self.done: set[int] = set()
        self._gates: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._open = False
        self.let(*passing)

    async def __call__(self, _event: bytes, record: Record) -> None:
        self.begun.append(record.offset)
        self.running.append(record.offset)
        try:
            if not self._open:
                await self._gates[record.offset].wait()
        finally:
            self.running.remove(record.offset)
        self.ended.append(record.offset)
        self.done.add(record.offset)

    def let(self, *offsets: int) -> None:
        for offset in offsets:
            self._gates[offset].set()

    def open(self) -> None:
        self._open = True
        self.let(*self._gates)


ORDERINGS = ("partition", "key", "unordered")
Script = dict[int, list[BaseException | None]]
"""For each offset what its calls raise, one after the other; the last one for ever."""


class Letters:
    """A dead-letter writer that accepts letters, or raises what a test asks for."""

    def __init__(self, done: set[int] | None = None, answers: list[Exception | None] | None = None) -> None:
        self.done = done if done is not None else set()
        self.written: list[tuple[int, Cause]] = []
        self.values: list[bytes | None] = []
        self.answers = answers or []
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, _key: TopicPartition, raw: Any, cause: Cause) -> None:
        await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.written.append((raw.offset, cause))
        self.values.append(raw.value)
        self.done.add(raw.offset)

    async def look(self) -> None:
        """Letters can be written."""

    @property
    def causes(self) -> list[tuple[int, str, str, int]]:
        return [(offset, cause.reason, cause.route, cause.attempts) for offset, cause in self.written]


class Scripted:
    """A handler that raises by script, and notes its calls and the records that it handled."""

    def __init__(self, script: Script, done: set[int] | None = None) -> None:
        self.script = {offset: list(answers) for offset, answers in script.items()}
        self.calls: list[int] = []
        self.done = done if done is not None else set()
        self.handled: list[int] = []

    def answer(self, record: Record) -> None:
        self.calls.append(record.offset)
        answers = self.script.get(record.offset, [None])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is not None:
            raise answer
        self.handled.append(record.offset)
        self.done.add(record.offset)

    def plain(self, _event: bytes, record: Record) -> None:
        self.answer(record)

    async def at_once(self, _event: bytes, record: Record) -> None:
        self.answer(record)

    async def later(self, _event: bytes, record: Record) -> None:
        await asyncio.sleep(0)
        self.answer(record)

    def kind(self, name: str) -> Callable[..., Any]:
        return {"plain": self.plain, "at_once": self.at_once, "later": self.later}[name]


def count(bench: Bench, outcome: Outcome, route: str = "r0") -> int:
    return bench.counters.outcomes[route, outcome]
