"""What an app is made from: a handler, routes, settings; and what is refused as at start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from consumer import testing
from consumer.errors import SettingsError
from consumer.settings.sections import Kafka, RouteSettings, SchemaSettings, Settings
from schemas.session import Session
from tests.unit.testing.events import ORDERS, Order, bill

MODULE = "tests.unit.testing.events"
HANDLER = """
import os
from schemas.session import Session

class Count:
    def __init__(self, path: str, token: str) -> None:
        assert token == os.environ["TOKEN"]
        self.path = path

    async def __call__(self, event: Session) -> None:
        assert self.path == "x"
"""
FILE = """
path = ["handlers"]

[kafka]
topics = ["session-events"]

[[routes]]
name = "count"
handler = "counting_for_test:Count"
match = { is_test = false }
options = { path = "x", token = { env = "TOKEN" } }
"""


async def test_a_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read as at start: path, routes, matches and options with their environment."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "counting_for_test.py").write_text(HANDLER)
    (tmp_path / "settings.toml").write_text(FILE)
    monkeypatch.setenv("TOKEN", "t")
    path = sys.path[:]
    async with testing.consumer(settings=str(tmp_path / "settings.toml")) as app:
        document = {"timestamp": "2026-01-01T00:00:00Z"}
        await app.give(document, document | {"is_test": True})
        assert app.outcomes == [("count", "handled"), ("none", "skipped")]
    assert sys.path == path
    sys.modules.pop("counting_for_test")


async def test_settings_with_references() -> None:
    """Settings name handlers and types as a file does; handlers given beside them replace their routes."""
    settings = Settings(
        kafka=Kafka(topics=["orders"]),
        schemas=[SchemaSettings("orders", f"{MODULE}:Order")],
        routes=[RouteSettings("bill", f"{MODULE}:bill")],
    )
    async with testing.consumer(settings=settings) as app:
        await app.give(Order(1))
        assert app.outcomes == [("bill", "handled")]
    async with testing.consumer(settings=settings, routes={"other": lambda event: None}) as app:
        await app.give(Order(1))
        assert app.outcomes == [("other", "handled")]


async def test_routes_with_their_keys() -> None:
    """A route is a handler or a table: a class is constructed with its options, a text is imported."""
    made: list[str] = []

    class Note:
        def __init__(self, label: str) -> None:
            made.append(label)

        def __call__(self, event: Order) -> None: ...

    routes: dict[str, Any] = {
        "first": {"handler": Note, "options": {"label": "a"}, "match": {"order_id": 1}},
        "second": {"handler": Note, "options": {"label": "b"}},
        "third": f"{MODULE}:bill",
    }
    async with testing.consumer(routes=routes, schemas=ORDERS) as app:
        await app.give(Order(2))
        assert app.outcomes == [("second", "handled"), ("third", "handled")]
    assert made == ["a", "b"]


async def test_handlers_of_the_same_name() -> None:
    """Two functions with one name are two handlers."""
    called: list[int] = []
    handlers = [lambda event, number=number: called.append(number) for number in (1, 2)]
    routes = {f"r{number}": {"handler": each} for number, each in enumerate(handlers)}
    async with testing.consumer(routes=routes, schemas=ORDERS) as app:
        await app.give(Order(1))
    assert len(called) == 2


def of_session(event: Session) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"routes": {"r": of_session}, "schemas": ORDERS},
            "annotated schemas.session.Session, but the events of topic",
        ),
        ({"routes": {"r": {"handler": bill, "matches": {}}}}, "r: unknown key 'matches'; did you mean 'match'"),
        (
            {"routes": {"r": {"handler": bill, "match": {"nothing": 1}}}, "schemas": ORDERS},
            "Order has no field 'nothing'",
        ),
        ({"routes": {"none": bill}}, "the name 'none' is reserved"),
        ({"routes": {"r": "no_such_module:f"}}, "there is no module 'no_such_module'"),
        ({"routes": {"r": {"handler": bill, "max_records": "many"}}}, "r: Expected `int"),
        ({"routes": {"r": {"handler": of_session, "timeout_seconds": 1.0}}}, "cannot be stopped"),
        ({"schemas": {"orders": int}}, "it is not a Struct"),
        ({"schemas": {"orders": {"type": Order, "format": "msgpack", "framing": "confluent"}}}, "framing: MessagePack"),
        ({"settings": "no-such-file.toml"}, "no-such-file.toml"),
        ({"settings": Settings(kafka=Kafka(topics=[]))}, "kafka.topics is empty"),
    ],
)
async def test_what_start_refuses(arguments: dict[str, Any], message: str) -> None:
    """A wrong setting raises SettingsError with the message of the daemon."""
    with pytest.raises(SettingsError, match=message):
        async with testing.consumer(**arguments):
            pass


async def test_keys_without_a_handler() -> None:
    """Keys of a route need a handler."""
    with pytest.raises(TypeError, match="max_records: these are keys of a route"):
        async with testing.consumer(max_records=3):
            pass


def test_run_gives_and_stops() -> None:
    """Outside of a coroutine, run gives events and stops: a batch is called and all is committed."""

    def insert(events: list[Order]) -> None: ...

    app = testing.run(insert, Order(1), Order(2), schemas=ORDERS)
    assert app.outcomes == [("insert", "handled")] * 2
    assert (len(app.calls), app.committed) == (1, {("orders", 0): 2})
