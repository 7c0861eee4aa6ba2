"""The table of a class of events: its columns, its creation or check, and the statement that writes rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import ReflectedColumn

from consumer.errors import SettingsError
from consumer.handlers.columns import OFFSET, PARTITION, POSITION, TOPIC
from consumer.handlers.sql_rows import KEY, Row


class UtcTime(sa.TypeDecorator[datetime]):
    """A time in UTC; SQLite, which has no type for it, gets ISO 8601, which sorts and which its functions read."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Choose the type by the database."""
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Return the value for the database."""
        return value.isoformat(timespec="microseconds") if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """Return the value as a time."""
        return datetime.fromisoformat(value) if isinstance(value, str) else value


JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
COLUMN_TYPES: Mapping[type, sa.types.TypeEngine[Any]] = {
    str: sa.Text(),
    bool: sa.Boolean(),
    int: sa.BigInteger(),
    float: sa.Double(),
    bytes: sa.LargeBinary(),
    datetime: UtcTime(),
    object: JSON,
}
"""Type of a column by its kind; ``object`` is any other value, as JSON."""

FITTING: Mapping[type, tuple[type[sa.types.TypeEngine[Any]], ...]] = {
    str: (sa.String,),
    bool: (sa.Boolean,),
    int: (sa.BigInteger, sa.INTEGER),
    float: (sa.Float, sa.Numeric),
    bytes: (sa.LargeBinary,),
    datetime: (sa.DateTime, sa.Text),
    object: (sa.JSON, sa.Text),
}
"""Types of an existing column that take the values of a kind."""


def make_table(name: str, kinds: Mapping[str, type], key: Sequence[str]) -> sa.Table:
    """Return the table of a class of events; ``key`` names its primary key."""
    schema, _, plain = name.rpartition(".")
    own = {KEY: sa.Text(), TOPIC: sa.Text(), PARTITION: sa.Integer(), OFFSET: sa.BigInteger()}
    types: dict[str, Any] = {each: COLUMN_TYPES[kind] for each, kind in kinds.items()} | own
    if KEY not in key:
        del types[KEY]
    columns = [
        sa.Column(each, kind, primary_key=each in key, nullable=each not in (*key, *POSITION), autoincrement=False)
        for each, kind in types.items()
    ]
    return sa.Table(plain, sa.MetaData(), *columns, schema=schema or None)


def prepare(connection: sa.Connection, table: sa.Table, kinds: Mapping[str, type], *, create: bool) -> None:
    """Create the table if it is missing and ``create`` allows it, else check it. Raises SettingsError."""
    if create and connection.dialect.name == "postgresql":  # two processes that create a table would fail
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(table.fullname))))
    found = sa.inspect(connection)
    if found.has_table(table.name, schema=table.schema):
        columns = {each["name"]: each for each in found.get_columns(table.name, schema=table.schema)}
        _check_columns(connection, table, columns, kinds)
        unique = [found.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"]]
        unique += [each["column_names"] for each in found.get_unique_constraints(table.name, schema=table.schema)]
        unique += [
            [name for name in each["column_names"] if name is not None]
            for each in found.get_indexes(table.name, schema=table.schema)
            if each["unique"] and not each.get("dialect_options", {}).get(f"{connection.dialect.name}_where")
        ]
        key = [each.name for each in table.primary_key]
        if sorted(key) not in map(sorted, unique):
            raise SettingsError(
                f"options.table: {table.fullname} has no primary key or unique index of exactly ({', '.join(key)}),"
                " which the upsert needs"
            )
    elif create:
        table.create(connection)
    else:
        raise SettingsError(
            f"options.table: {table.fullname} does not exist; create it, or leave out create = false. It would be"
            f" {_one_line(sa.schema.CreateTable(table).compile(dialect=connection.dialect))}"
        )


def _check_columns(
    connection: sa.Connection, table: sa.Table, found: Mapping[str, ReflectedColumn], kinds: Mapping[str, type]
) -> None:
    own = {KEY: str, TOPIC: str, PARTITION: int, OFFSET: int}
    missing = [column for column in table.columns if column.name not in found]
    if missing:
        added = [_one_line(sa.schema.CreateColumn(each).compile(dialect=connection.dialect)) for each in missing]
        additions = "; ".join(f"ALTER TABLE {table.fullname} ADD COLUMN {each}" for each in added)
        raise SettingsError(f"options.table: {table.fullname} lacks columns of the event; run {additions}")
    for column in table.columns:
        kind = {**kinds, **own}[column.name]
        if not isinstance(found[column.name]["type"], FITTING[kind]):
            raise SettingsError(
                f"options.table: column {column.name} of {table.fullname} is {found[column.name]['type']}, and the"
                f" events need {column.type.compile(connection.dialect)}"
            )
    for name, each in found.items():
        if name not in table.columns and not each["nullable"] and each.get("default") is None:
            raise SettingsError(
                f"options.table: column {name} of {table.fullname} is no field of the event, and has no default; give"
                " it one, or let it be null"
            )


def _one_line(compiled: object) -> str:
    return " ".join(str(compiled).split())


class Statement:
    """A statement and its parameters as the driver takes them.

    SQLAlchemy's own way to parameters took a third of the CPU of a row.
    """

    def __init__(self, insert: sa.Insert, table: sa.Table, dialect: sa.Dialect, kinds: Mapping[str, type]) -> None:
        compiled: Any = insert.compile(dialect=dialect, column_keys=[each.name for each in table.columns])
        self.text = str(compiled)
        self._values = itemgetter(*compiled.positiontup)
        self._processors: list[tuple[str, Callable[[Any], Any]]] = []
        for name, kind in kinds.items():
            processor = table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None and kind in (datetime, object):  # drivers take the others as they are
                self._processors.append((name, processor))

    def parameters(self, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
        """Return the parameters of rows."""
        return [self._values({**row, **{name: to(row[name]) for name, to in self._processors}}) for row in rows]


def upsert(table: sa.Table, dialect: sa.Dialect, kinds: Mapping[str, type], *, erase: bool) -> Statement:
    """Return the statement that writes a row, or merges it into the row that has its key.

    A record of a lower offset of the same partition changes no value; without ``erase`` it adds what is not known.
    """
    insert = sqlite.insert(table) if dialect.name == "sqlite" else postgresql.insert(table)
    new, old = insert.excluded, table.c
    late = sa.and_(old[OFFSET] >= new[OFFSET], old[PARTITION] == new[PARTITION], old[TOPIC] == new[TOPIC])
    key = [each.name for each in table.primary_key]
    changed = [column.name for column in table.columns if column.name not in key]
    if erase:
        every = {name: new[name] for name in changed}
        insert = insert.on_conflict_do_update(index_elements=key, set_=every, where=sa.not_(late))
    else:
        known: dict[str, Any] = {
            name: sa.case((late, old[name]), else_=new[name])
            if name in POSITION
            else sa.case((late, sa.func.coalesce(old[name], new[name])), else_=sa.func.coalesce(new[name], old[name]))
            for name in changed
        }
        insert = insert.on_conflict_do_update(index_elements=key, set_=known)
    return Statement(insert, table, dialect, kinds)
