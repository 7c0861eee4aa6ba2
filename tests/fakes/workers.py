"""Workers as the HTTP server of their parent sees them, with what a test sets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from consumer.http.workers.facts import WorkerFacts


def some_facts(number: int, port: int | None = None, **values: Any) -> WorkerFacts:
    """Facts of a worker that runs."""
    usual: dict[str, Any] = {
        "pid": 4_100 + number,
        "state": "running",
        "serving": True,
        "since": time.time() - 93.0,
        "restarts": 0,
        "exit_code": None,
        "starts_at": None,
    }
    return WorkerFacts(number=number, port=port, **(usual | values))


def ended(number: int, port: int | None = None, code: int = 137) -> WorkerFacts:
    """Facts of a worker that ended and is started again."""
    now = time.time()
    gone: dict[str, Any] = {"pid": None, "state": "ended", "serving": False, "since": now - 2.0}
    return some_facts(number, port, exit_code=code, restarts=3, starts_at=now + 6.0, **gone)


def starting(number: int, port: int | None = None, seconds: float = 1.0) -> WorkerFacts:
    """Facts of a worker whose handlers are not open yet."""
    return some_facts(number, port, state="starting", serving=False, since=time.time() - seconds)


@dataclass
class FakeSupervised:
    """Implements ``Supervised``."""

    facts: Sequence[WorkerFacts] = field(default_factory=list)
    stopping: bool = False
