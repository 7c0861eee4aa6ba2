"""The handler that logs each event, with its fields only when ``log.payloads`` is true."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from consumer.record import Record


class Log:
    """Logs each event under the name of its type in lower case; lives as long as its route."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("consumer.handlers.log")

    def __call__(self, event: Any, record: Record) -> None:
        """Log one event."""
        self._log.info(
            type(event).__name__.lower(),
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            bytes=len(record.value or b""),
            payload=msgspec.to_builtins(event),
        )
