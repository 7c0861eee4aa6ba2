"""The handler that upserts events into a table of SQLite or PostgreSQL, one transaction a batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Self

import structlog

from consumer import Record, Reject, Secret
from consumer.errors import ConsumerError, SettingsError, SinkError, hint
from consumer.handlers.columns import kinds_of
from consumer.handlers.sql_rows import OWN_COLUMNS, SESSION_KEYS, Row, Rows
from schemas.session import Session
from schemas.types import event_type

try:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from consumer.handlers.sql_engine import is_away, is_of_the_row, make_engine, require_file, why
    from consumer.handlers.sql_table import Statement, make_table, prepare, upsert
except ModuleNotFoundError as error:
    raise SettingsError("it needs SQLAlchemy; install session-consumer with the extra `sql`") from error

log = structlog.get_logger("consumer.handlers.sql")


class Target(NamedTuple):
    """Where the events of one class go."""

    kind: type
    columns: dict[str, type]
    table: sa.Table
    rows: Rows
    statement: Statement


class Upsert:
    """Writes each batch in one transaction, which is committed when the call returns.

    - A row has the values of the newest record of its key, by offset; a null does not erase, without ``erase``.
    - A record that is written again changes nothing.
    - What the database cannot store now holds the partition. A record that it refuses is rejected alone.
    """

    def __init__(
        self, url: Secret, table: str, key: list[str] | None = None, *, create: bool = True, erase: bool = False
    ) -> None:
        """Take the route's options; ``key`` names the fields that identify a row."""
        if not table.strip("."):
            raise SettingsError("options.table is empty; name the table, or schema.table")
        if key is not None and (not key or len(set(key)) < len(key)):
            raise SettingsError("options.key must name one or more fields, each once")
        self._engine: AsyncEngine = make_engine(url)
        self._table = table
        self._key = key
        self._create = create
        self._erase = erase
        self._target: Target | None = None
        self._prepared = False
        self._one = asyncio.Lock()
        """Held while the table is prepared; SQLite has one writer, so it also waits here for its turn."""

    def expect_events(self, kind: type) -> None:
        """Take the class of the route's events. Raises SettingsError if it makes no table, or another one."""
        if self._target is not None and self._target.kind is kind:
            return
        if self._target is not None:
            raise SettingsError(
                f"a table holds events of one type, and the route gets {self._target.kind.__name__} and"
                f" {kind.__name__}; set topics of the route, or match a union's tag"
            )
        (member,) = event_type(kind).members
        columns = kinds_of(member, OWN_COLUMNS)
        for name in self._key or []:
            if name not in columns:
                raise SettingsError(f"options.key: {kind.__name__} has no field {name!r}{hint(name, columns)}")
            if columns[name] is object:
                raise SettingsError(f"options.key: field {name!r} of {kind.__name__} is JSON, which cannot be a key")
        rows = Rows(member, columns, self._key or [], SESSION_KEYS if issubclass(kind, Session) else ())
        table = make_table(self._table, columns, rows.key)
        statement = upsert(table, self._engine.dialect, columns, erase=self._erase)
        self._target = Target(kind, columns, table, rows, statement)

    async def __aenter__(self) -> Self:
        require_file(self._engine)
        try:
            await self._prepare()
        except SinkError as error:
            log.warning("database_away", why=str(error))
        except BaseException:
            await self._engine.dispose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    async def __call__(self, events: list[Any], records: list[Record]) -> None:
        """Store a batch. Raises SinkError if it cannot be stored now, and Reject for records that never can."""
        target = await self._ready()
        rows, refused, code = self._rows_of(target, events, records)
        if not refused:
            turn = self._one if self._engine.dialect.name == "sqlite" else contextlib.nullcontext()
            async with turn, self._transaction() as connection:
                refused = await self._store(target, connection, list(enumerate(rows)))
                if refused:
                    await connection.rollback()
                    if len(refused) == len(rows):
                        await self._check_again(target, connection)
                    code = "refused_by_database"
        if refused:
            raise Reject("the database cannot store them", code=code, indexes=refused)

    async def _ready(self) -> Target:
        """Return the target; the table is prepared now if the database was away at the start."""
        try:
            return await self._prepare()
        except SettingsError as error:
            raise SinkError(str(error)) from error

    async def _prepare(self) -> Target:
        if self._target is None:
            raise SettingsError("the type of the events is unknown; call expect_events with it")
        target = self._target
        async with self._one:
            if not self._prepared:
                try:
                    async with self._engine.begin() as connection:
                        await connection.run_sync(prepare, target.table, target.columns, create=self._create)
                except (sa.exc.SQLAlchemyError, OSError) as error:
                    problem = SinkError if is_away(error) else SettingsError
                    raise problem(f"options.url: cannot prepare table {self._table}: {why(error)}") from error
                self._prepared = True
        return target

    async def _check_again(self, target: Target, connection: AsyncConnection) -> None:
        """Raise SinkError if no record was stored because the table was altered."""
        try:
            await connection.run_sync(prepare, target.table, target.columns, create=False)
        except SettingsError as error:
            raise SinkError(str(error)) from error

    def _rows_of(
        self, target: Target, events: Sequence[Any], records: Sequence[Record]
    ) -> tuple[list[Row], list[int], str | None]:
        """Return the rows, or the indexes of records that have none and the code of the first."""
        rows, refused, code = [], [], None
        for index, (event, record) in enumerate(zip(events, records, strict=True)):
            try:
                rows.append(target.rows.row(event, record))
            except Reject as error:
                if code in (None, error.code):
                    refused.append(index)
                    code = error.code
        return rows, refused, code

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
                await connection.commit()
        except ConsumerError:
            raise
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise SinkError(f"cannot store in table {self._table}: {why(error)}") from error

    async def _store(self, target: Target, connection: AsyncConnection, rows: Sequence[tuple[int, Row]]) -> list[int]:
        """Write rows; return the indexes of those that the database refuses, found by halving."""
        merged = target.rows.merged([row for _, row in rows], erase=self._erase)
        try:
            async with connection.begin_nested():
                await connection.exec_driver_sql(target.statement.text, target.statement.parameters(merged))
        except Exception as error:
            if not is_of_the_row(error):
                raise
        else:
            return []
        if len(rows) == 1:
            return [rows[0][0]]
        half = len(rows) // 2
        first = await self._store(target, connection, rows[:half])
        return first + await self._store(target, connection, rows[half:])
