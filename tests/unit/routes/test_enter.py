"""Entering and leaving handlers: the first failure counts."""

from __future__ import annotations

import contextlib
from typing import Self

import pytest
from structlog.testing import capture_logs

from consumer.errors import PartitionHaltedError, SettingsError, SinkError
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route, enter_handlers


class Handler:
    """A handler whose entering and leaving may fail, and that notes when it is left."""

    def __init__(self, entering: Exception | None = None, leaving: Exception | None = None) -> None:
        self.entering = entering
        self.leaving = leaving
        self.left = False

    async def __aenter__(self) -> Self:
        if self.entering is not None:
            raise self.entering
        return self

    async def __aexit__(self, *_: object) -> bool:
        self.left = True
        if self.leaving is not None:
            raise self.leaving
        return True

    def __call__(self, _event: object) -> None: ...


async def run(handlers: list[Handler], failure: Exception | None = None) -> None:
    """Enter the handlers, fail if there is a failure, and leave them."""
    async with contextlib.AsyncExitStack() as opened:
        routes = [Route(f"r{number}", None, bind_handler(each, "here")) for number, each in enumerate(handlers)]
        await enter_handlers(routes, opened, object)
        if failure is not None:
            raise failure


async def test_leaving_does_not_hide_the_failure() -> None:
    """The failure in which handlers are left is raised; those of leaving them are logged, and all are left."""
    handlers = [Handler(leaving=SinkError("the disk is full")), Handler(leaving=ValueError("+1804")), Handler()]
    with capture_logs() as logged, pytest.raises(PartitionHaltedError):
        await run(handlers, PartitionHaltedError("t-0 halted"))
    assert all(each.left for each in handlers)
    assert [(each["event"], each["route"]) for each in logged] == [("leaving_failed", "r1"), ("leaving_failed", "r0")]
    assert "the disk is full" in logged[1]["error"]
    assert "+1804" not in logged[0]["error"]


async def test_a_handler_that_cannot_be_entered() -> None:
    """The failure of entering is raised, though a handler entered before it fails to be left."""
    handlers = [Handler(leaving=SinkError("the disk is full")), Handler(entering=ValueError())]
    with capture_logs() as logged, pytest.raises(SettingsError, match=r"routes \(r1\)"):
        await run(handlers)
    assert [each["route"] for each in logged] == ["r0"]
    assert [each.left for each in handlers] == [True, False]


async def test_of_two_failures_of_leaving_the_first_counts() -> None:
    """Without another failure the first of leaving is raised, and the other logged."""
    with capture_logs() as logged, pytest.raises(SinkError):
        await run([Handler(leaving=ValueError()), Handler(leaving=SinkError("the disk is full"))])
    assert [each["route"] for each in logged] == ["r0"]


async def test_a_handler_hides_no_failure() -> None:
    """A handler whose ``__aexit__`` returns True does not hide a failure."""
    with pytest.raises(PartitionHaltedError):
        await run([Handler()], PartitionHaltedError("t-0 halted"))
