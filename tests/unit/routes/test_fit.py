"""Settings of a route that its handler can follow, and those that it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from consumer import Record
from consumer.errors import SettingsError
from consumer.routes.handler import Handler
from consumer.routes.load import load_handler
from consumer.settings.sections import RouteSettings

NEVER_SECONDS = 3600.0
THREADS = 8
HERE = __name__


def plain(_event: object) -> None:
    """Handle an event."""


async def asynchronous(_event: object) -> None:
    """Handle an event."""


def of_batches(_events: list[object]) -> None:
    """Handle a batch."""


def of_batches_beside_records(_events: list[object], _records: list[Record]) -> None:
    """Handle a batch."""


class Asynchronous:
    def __call__(self, _event: object) -> None:
        """Handle an event."""

    async def expect_events(self, _kind: type) -> None:
        """Take the class of events."""


class Flushing:
    def __call__(self, _event: object, _record: Record) -> None:
        """Handle an event."""

    async def flush(self) -> None:
        """Make durable."""


def loaded(handler: Any, **route: Any) -> Handler:
    return load_handler(
        RouteSettings(name="r", handler=f"{HERE}:{handler.__name__}", **route), "routes[0] (r)", {}, THREADS
    )


@pytest.mark.parametrize(
    ("handler", "route", "says"),
    [
        (asynchronous, {"threaded": True}, "threaded: an async handler runs in the event loop"),
        (plain, {"timeout_seconds": 1.0}, "timeout_seconds: a plain function that runs inline cannot be stopped"),
        (of_batches, {"timeout_seconds": 1.0}, "timeout_seconds: a plain function that runs inline cannot be stopped"),
        (plain, {"max_records": 10}, "max_records, max_seconds: the handler's first parameter is not annotated list"),
        (plain, {"max_seconds": 1.0}, "max_records, max_seconds: the handler's first parameter is not annotated list"),
        (plain, {"flush_seconds": 5.0}, "flush_seconds: the handler has no `async def flush(self)`"),
        (plain, {"tombstones": True}, "tombstones: the handler needs a second parameter, the Record"),
        (of_batches_beside_records, {"tombstones": True}, "tombstones: the handler needs a second parameter"),
    ],
)
def test_settings_that_the_handler_cannot_follow(handler: Any, route: dict[str, Any], says: str) -> None:
    """A setting that has no effect on its handler is an error that names the route and the setting."""
    with pytest.raises(SettingsError) as raised:
        loaded(handler, **route)
    assert str(raised.value).startswith(f"routes[0] (r).{says}")


@pytest.mark.parametrize(("reference", "options"), [("jsonl:JsonLines", {"path": "lines.jsonl"}), ("stats:Stats", {})])
def test_shipped_handlers_that_no_thread_may_call(reference: str, options: dict[str, Any]) -> None:
    """Threads would drop each other's lines and counts, though their calls returned: such a route is refused."""
    route = RouteSettings("r", f"consumer.handlers.{reference}", options=options, threaded=True)
    with pytest.raises(SettingsError, match="threaded: calls of this handler must not overlap; leave it out"):
        load_handler(route, "routes[0] (r)", {}, THREADS)


async def test_settings_that_the_handler_follows() -> None:
    """Threads, limits, batch sizes, tombstones and the flush interval reach the handler."""
    threaded = loaded(plain, threaded=True, timeout_seconds=NEVER_SECONDS)
    assert threaded.is_async
    assert await threaded.call(b"event") is None
    assert loaded(asynchronous, timeout_seconds=1.0).is_async
    batches = loaded(of_batches, max_records=7, max_seconds=2.5)
    assert (batches.takes_batches, batches.wants_record, batches.max_records, batches.max_seconds) == (
        True,
        False,
        7,
        2.5,
    )
    assert loaded(of_batches_beside_records, threaded=True).wants_record
    flushing = loaded(Flushing, flush_seconds=5.0, tombstones=True)
    assert flushing.flush is not None
    assert flushing.flush_seconds == 5.0


def test_expect_events_is_called_at_start() -> None:
    """A handler's ``expect_events`` that is a coroutine would never run, so it is refused."""
    with pytest.raises(SettingsError, match=r"expect_events must be `def expect_events\(self, kind\)`"):
        loaded(Asynchronous)
