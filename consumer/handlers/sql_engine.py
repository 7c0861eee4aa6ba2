"""The database: the engine of a URL, and what its errors mean."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from consumer.errors import SettingsError

DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "postgres": "asyncpg"}
CONNECTIONS = 8
"""Connections to PostgreSQL at most; each partition writes one batch at a time."""
CONNECT_SECONDS = 10
STATEMENT_SECONDS = 60
"""Time limit of a statement, also while the server is silent."""
SQLITE_BUSY_SECONDS = 5
"""Time for which SQLite waits for a lock of another process."""
OF_THE_ROW = ("22", "23")
"""Classes of SQLSTATE that the values of a row cause: data exceptions and violated constraints."""
AWAY = ("08", "53", "57", "58")
"""Classes of SQLSTATE that a server causes which is away, full, starting or stopping."""


def make_engine(url: str) -> AsyncEngine:
    """Return the engine of ``options.url``; it connects when it is used. Raises SettingsError, without the URL."""
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        raise SettingsError("options.url: it is not a URL of a database, such as sqlite:///events.db") from None
    name, _, driver = parsed.drivername.partition("+")
    if name not in DRIVERS or driver not in ("", DRIVERS[name]):
        raise SettingsError("options.url: it must begin with sqlite:///, or with postgresql:// and use asyncpg")
    sqlite = name == "sqlite"
    if sqlite and parsed.database in (None, "", ":memory:"):
        raise SettingsError("options.url: SQLite needs a file, such as sqlite:///events.db; memory keeps nothing")
    parsed = parsed.set(drivername="sqlite+aiosqlite" if sqlite else "postgresql+asyncpg")
    limits: dict[str, Any] = (
        {"timeout": SQLITE_BUSY_SECONDS}
        if sqlite
        else {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
    )
    pool: dict[str, Any] = {} if sqlite else {"pool_size": CONNECTIONS, "max_overflow": 0}
    engine = create_async_engine(
        parsed,
        hide_parameters=True,
        connect_args=limits,
        json_serializer=_json,
        json_deserializer=msgspec.json.decode,
        **pool,
    )
    if sqlite:
        sa.event.listen(engine.sync_engine, "connect", _open_sqlite)
        sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def require_file(engine: AsyncEngine) -> None:
    """Raise SettingsError if a file of SQLite cannot be opened; aiosqlite would leave a thread that fails later."""
    database = engine.url.database or ""
    if engine.dialect.name == "sqlite" and not database.startswith("file:"):
        try:
            sqlite3.connect(database).close()
        except sqlite3.Error as error:
            raise SettingsError(f"options.url: cannot open the file: {why(error)}") from error


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _open_sqlite(connection: Any, _: object) -> None:
    """Let SQLAlchemy begin transactions, so that savepoints work; sync each commit to disk."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # a lock that is taken later cannot be waited for


def is_of_the_row(error: BaseException) -> bool:
    """Whether the values of a row caused an error, so that the row would fail again."""
    if isinstance(error, sa.exc.DBAPIError):
        if error.connection_invalidated:
            return False
        state = _state(error)
        return state[:2] in OF_THE_ROW if state else isinstance(error.orig, sqlite3.IntegrityError | sqlite3.DataError)
    # of a driver or of SQLAlchemy, before a value was sent: an integer over 64 bits, text that is not Unicode
    return isinstance(error, OverflowError | ValueError) or type(error) is sa.exc.StatementError


def is_away(error: BaseException) -> bool:
    """Whether the database is out of reach, and may come back by itself."""
    if isinstance(error, sa.exc.DBAPIError):
        return error.connection_invalidated or _state(error)[:2] in AWAY
    return isinstance(error, OSError | sa.exc.TimeoutError)


def why(error: BaseException) -> str:
    """Describe an error by its class and code; its text may quote values."""
    orig = getattr(error, "orig", None)
    cause = orig.__cause__ or orig if orig is not None else error
    code = _state(error) or getattr(cause, "sqlite_errorname", "")
    return f"{type(cause).__name__}{f' {code}' if code else ''}"


def _state(error: BaseException) -> str:
    """Return the SQLSTATE of PostgreSQL's answer; empty without one."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""
