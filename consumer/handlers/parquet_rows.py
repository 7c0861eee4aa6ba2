"""Events as Arrow: the type of each column, and batches of rows with the position of each record. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from consumer.errors import SettingsError, hint
from consumer.handlers.columns import (
    CONVERTERS,
    OFFSET,
    PARTITION,
    POSITION,
    TOPIC,
    fields_of,
    getter,
    in_utc,
    kind_of,
    types_of,
)
from consumer.instructions import Reject
from consumer.record import Position, Record
from schemas.types import Member

inspect = msgspec.inspect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCALARS = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
    datetime: pa.timestamp("us", "UTC"),
}
OWN = {TOPIC: pa.string(), PARTITION: pa.int32(), OFFSET: pa.int64()}
LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
OBJECTS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
UNFIT = (ValueError, TypeError, OverflowError, RecursionError, Reject)
"""What Arrow, msgspec and the converters raise for values that fit no column; errors of Arrow are ValueErrors."""


class Column(NamedTuple):
    """The type of a column, and how a value becomes one of it; None if Arrow takes the value as it is."""

    type: pa.DataType
    convert: Callable[[Any], Any] | None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


JSON = Column(pa.string(), _json)
"""What has no type in Arrow, or more than one."""


def column_of(info: inspect.Type, within: tuple[type, ...] = ()) -> Column:
    """Return the column of values of a type; ``within`` are the classes that hold them."""
    given, kind = types_of(info), kind_of(info)
    if given and all(isinstance(each, inspect.DateType) for each in given):
        return Column(pa.date32(), None)
    if kind is float and len(given) > 1:
        return Column(SCALARS[kind], float)
    if kind is not object:
        plain = all(isinstance(each, inspect.StrType) for each in given)
        return Column(SCALARS[kind], None if plain else CONVERTERS.get(kind))
    return _nested(given[0], within) if len(given) == 1 else JSON


def _nested(info: Any, within: tuple[type, ...]) -> Column:
    if isinstance(info, LISTS):
        return _list_of(column_of(info.item_type, within))
    if isinstance(info, inspect.DictType) and isinstance(info.key_type, inspect.StrType):
        return _map_of(column_of(info.value_type, within))
    if isinstance(info, OBJECTS) and info.fields and info.cls not in within:
        return _struct_of(info, (*within, info.cls))
    return JSON


def _list_of(item: Column) -> Column:
    return Column(pa.list_(item.type), lambda values: [_converted(item, each) for each in values])


def _map_of(item: Column) -> Column:
    return Column(
        pa.map_(pa.string(), item.type),
        lambda values: [(key, _converted(item, each)) for key, each in values.items()],
    )


def _struct_of(info: Any, within: tuple[type, ...]) -> Column:
    columns = {each.name: column_of(each.type, within) for each in info.fields}
    values_of = getter(tuple(columns), by_key=isinstance(info, inspect.TypedDictType))

    def convert(value: Any) -> dict[str, Any]:
        pairs = zip(columns.items(), values_of(value), strict=True)
        return {name: _converted(column, each) for (name, column), each in pairs}

    return Column(pa.struct([(name, each.type) for name, each in columns.items()]), convert)


def _converted(column: Column, value: Any) -> Any:
    if value is None or value is msgspec.UNSET:
        return None
    return value if column.convert is None else column.convert(value)


class ArrowRows:
    """Makes rows of events of one class."""

    def __init__(self, member: Member, date_field: str) -> None:
        """Take the field that decides the day of a row; empty for the record's timestamp.

        Raises SettingsError for a class that makes no columns, or whose ``date_field`` is no date.
        """
        fields = fields_of(member, POSITION)
        infos = {name: inspect.type_info(each) for name, each in fields.items()}
        self._columns = {name: column_of(info) for name, info in infos.items()}
        self._values = getter(tuple(fields), by_key=member.by_key)
        if date_field:
            _require_date(member, date_field, self._columns)
        self._date_of = getter((date_field,), by_key=member.by_key) if date_field else None
        types = {name: column.type for name, column in self._columns.items()} | OWN
        self.schema = pa.schema(list(types.items()))

    def batch(self, events: Sequence[Any], positions: Sequence[Position]) -> pa.RecordBatch:
        """Return the rows of events; a tombstone has nulls. Raises one of UNFIT for a value that fits no column."""
        nothing = (None,) * len(self._columns)
        rows = [nothing if event is None else self._values(event) for event in events]
        arrays = [
            _array(column, values)
            for column, values in zip(self._columns.values(), zip(*rows, strict=True), strict=True)
        ]
        own = [pa.array(values, each) for values, each in zip(zip(*positions, strict=True), OWN.values(), strict=True)]
        return pa.RecordBatch.from_arrays([*arrays, *own], schema=self.schema)

    def day(self, event: Any, record: Record) -> date:
        """Return the date of a row in UTC. Raises Reject for a time that UTC cannot express."""
        value = None if event is None or self._date_of is None else self._date_of(event)[0]
        if isinstance(value, datetime):
            return in_utc(value).date()
        if isinstance(value, date):
            return value
        try:
            return (EPOCH + timedelta(milliseconds=max(0, record.timestamp_ms))).date()
        except OverflowError as error:
            raise Reject("the record's timestamp is no date", code="time_out_of_range") from error


def _array(column: Column, values: Sequence[Any]) -> pa.Array:
    if column.convert is not None or msgspec.UNSET in values:
        values = [_converted(column, each) for each in values]
    return pa.array(values, column.type)


def _require_date(member: Member, date_field: str, columns: dict[str, Column]) -> None:
    name = member.kind.__name__
    if date_field not in columns:
        raise SettingsError(
            f"options.date_field: {name} has no field {date_field!r}{hint(date_field, columns)}; name one, or set it to"
            ' "" for the timestamp of the record'
        )
    if not (pa.types.is_timestamp(columns[date_field].type) or pa.types.is_date(columns[date_field].type)):
        raise SettingsError(f"options.date_field: field {date_field!r} of {name} is neither a datetime nor a date")
