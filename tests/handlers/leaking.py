"""A handler that fails in every possible way, each time with the caller's number in the exception."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

from consumer import Pause, Record, Reject, Retry


class Leaking:
    """An event's session_id says how it fails; ``Retry`` and ``Pause`` succeed the second time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls: Counter[str] = Counter()

    async def __call__(self, event: Any, record: Record) -> None:
        how, number = event.session_id, event.source
        self._calls[how] += 1
        first = self._calls[how] == 1
        if how == "error":
            raise ValueError(f"cannot call {number}", record)
        if how == "group":
            raise ExceptionGroup(number, [KeyError(number), RuntimeError(number)])
        if how == "reject":
            raise Reject(f"{number} is not one of ours")
        if how == "retry" and first:
            raise Retry(after=0.01) from LookupError(number)
        if how == "pause" and first:
            raise Pause(after=0.01) from OSError(number)
        if how == "down" and first:
            raise ConnectionResetError(f"no line to {number}")
        if how == "timeout":
            await asyncio.sleep(60)
        if how == "says":
            structlog.get_logger("handler").info("called", payload=number)

    async def flush(self) -> None:
        if (broken := self._folder / "broken").exists():
            raise OSError(broken.read_text())


def matching(event: Any) -> None:
    """Fail inline."""
    if event.session_id == "inline":
        raise RuntimeError(event.source)
