"""The handlers of the examples and of the README, with their own settings."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from itertools import islice
from pathlib import Path

import duckdb
import msgspec
import pytest

from consumer import testing
from schemas.samples import sessions
from schemas.session import Session
from tests.docs import ROOT
from tests.unit.handlers.receiver import receiver

SESSIONS = list(islice(sessions(), 40))
REAL = [each for each in SESSIONS if not each.is_test]


def is_voice(session: Session) -> bool:
    return (session.channel_manager_type or "").startswith("voice_")


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which paths of options begin."""
    monkeypatch.chdir(tmp_path)


async def test_the_example_settings(tmp_path: Path) -> None:
    """Each route of examples/settings.toml gets its sessions: files of voice and chat, and counts by agent."""
    async with testing.consumer(settings=ROOT / "examples" / "settings.toml") as app:
        await app.give(*SESSIONS)
        assert not [entry for entry in app.outcomes if entry[1] not in ("handled", "skipped")]
        agents = {call.event.session_id for call in app.calls if call.route == "agents"}
        assert agents == {each.session_id for each in REAL}
        await app.advance(1)
        assert app.committed == {("session-events", 0): len(SESSIONS)}
    counts = json.loads((tmp_path / "data" / "agents.json").read_text())
    assert sum(counts.values()) == len(REAL)
    lines = (tmp_path / "data" / "voice.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["session_id"] for line in lines] == [
        each.session_id for each in REAL if is_voice(each)
    ]


async def test_the_example_of_the_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The route of examples/webhook.toml sends each real voice session, signed, to the URL of the environment."""
    async with receiver() as server:
        monkeypatch.setenv("WEBHOOK_URL", server.url)
        monkeypatch.setenv("WEBHOOK_SECRET", "whsec_a2V5")
        async with testing.consumer(settings=ROOT / "examples" / "webhook.toml") as app:
            await app.give(*SESSIONS)
        wanted = {each.session_id for each in REAL if is_voice(each)}
        assert {each.json["data"]["session_id"] for each in server.received} == wanted
        assert all(each.headers["webhook-signature"] == each.signature(b"key") for each in server.received)


async def test_the_example_of_sql(tmp_path: Path) -> None:
    """Each session of examples/sql.toml that is real has one row, with what its records say."""
    longer = [msgspec.structs.replace(each, duration=99.0, agent_name=None) for each in REAL]
    async with testing.consumer(settings=ROOT / "examples" / "sql.toml") as app:
        await app.give(*SESSIONS, *longer)
        await app.advance(2)
        assert app.committed == {("session-events", 0): len(SESSIONS) + len(longer)}
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
        rows = set(database.execute("SELECT session_id, agent_name, duration FROM sessions"))
    assert rows == {(each.session_id, each.agent_name, 99.0) for each in REAL}


async def test_the_example_of_parquet(tmp_path: Path) -> None:
    """The sessions of examples/parquet.toml that are real are in files, from the first flush on, after a minute."""
    async with testing.consumer(settings=ROOT / "examples" / "parquet.toml") as app:
        await app.give(*SESSIONS)
        await app.advance(61)
        assert app.committed == {("session-events", 0): len(SESSIONS)}
        with duckdb.connect() as connection:
            rows = connection.sql(f"SELECT session_id FROM '{tmp_path}/sessions/**/*.parquet' ORDER BY _offset")
            assert rows.fetchall() == [(each.session_id,) for each in REAL]


async def test_the_example_of_republish() -> None:
    """Each session of examples/republish.toml that is real is written to the clean topic, with the named fields."""
    async with testing.consumer(settings=ROOT / "examples" / "republish.toml") as app:
        await app.give(*SESSIONS, key="k")
        await app.advance(2)
        assert app.committed == {("session-events", 0): len(SESSIONS)}
    assert {(each.topic, each.key) for each in app.written} == {("session-events.clean", b"k")}
    documents = [msgspec.json.decode(each.value or b"") for each in app.written]
    assert [each["session_id"] for each in documents] == [each.session_id for each in REAL]
    fields = {"timestamp", "session_id", "channel_manager_type", "agent_id", "duration"}
    assert {name for each in documents for name in each} == fields


async def test_the_example_of_stats() -> None:
    """The route of examples/stats.toml counts each session, and those of tests apart."""
    async with testing.consumer(settings=ROOT / "examples" / "stats.toml") as app:
        await app.give(*SESSIONS)
        assert app.outcomes == [("counts", "handled")] * len(SESSIONS)


async def test_counts_go_on_after_a_restart(tmp_path: Path) -> None:
    """The example handler continues its counts from its file."""
    for _ in range(2):
        async with testing.consumer(settings=ROOT / "examples" / "settings.toml") as app:
            await app.give(REAL[0])
    assert json.loads((tmp_path / "data" / "agents.json").read_text()) == {REAL[0].agent_name: 2}


async def test_the_handler_of_the_readme(tmp_path: Path) -> None:
    """The two handlers that the README shows get their events: real voice sessions, and orders."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, settings = (
        re.findall(rf"^```{each}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0] for each in ("python", "toml")
    )
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "shop.py").write_text(code)
    (tmp_path / "settings.toml").write_text(settings)
    wanted = [each for each in REAL if is_voice(each)]
    try:
        async with testing.consumer(settings="settings.toml") as app:
            await app.give(*SESSIONS, topic="session-events")
            await app.give({"order_id": 1, "total": 9.5}, topic="orders")
            assert [call.event for call in app.calls if call.route == "talk"] == wanted
            (bill,) = [call for call in app.calls if call.route == "bill"]
            assert (bill.event.order_id, bill.event.total, app.outcomes[-1]) == (1, 9.5, ("bill", "handled"))
    finally:
        sys.modules.pop("shop", None)
