"""Columns of the events of one class: the kind of each, and a value as it becomes that of its column. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec

from consumer.errors import SettingsError
from consumer.instructions import Reject
from schemas.types import Member

inspect = msgspec.inspect

TOPIC, PARTITION, OFFSET = "_topic", "_partition", "_offset"
POSITION = (TOPIC, PARTITION, OFFSET)
"""Columns of the position at which a record was first consumed."""

KINDS: Sequence[tuple[tuple[type[inspect.Type], ...], type]] = (
    ((inspect.BoolType,), bool),
    ((inspect.IntType,), int),
    ((inspect.FloatType,), float),
    ((inspect.FloatType, inspect.IntType), float),
    ((inspect.BytesType,), bytes),
    ((inspect.DateTimeType,), datetime),
    (
        (
            inspect.StrType,
            inspect.UUIDType,
            inspect.DateType,
            inspect.TimeType,
            inspect.DecimalType,
            inspect.TimeDeltaType,
        ),
        str,
    ),
)


def fields_of(member: Member, own: Sequence[str]) -> Mapping[str, Any]:
    """Return the annotation of each field. Raises SettingsError for a class without fields, or with one of ``own``."""
    if not member.fields:
        raise SettingsError(f"events of type {member.kind.__name__} have no fields to be columns; name a Struct")
    for name in own:
        if name in member.fields:
            raise SettingsError(f"{member.kind.__name__} has a field {name}, which is a column that the handler adds")
    return member.fields


def kinds_of(member: Member, own: Sequence[str]) -> dict[str, type]:
    """Return the kind of column of each field, beside the columns ``own``; raises as ``fields_of`` does."""
    return {name: kind_of(inspect.type_info(each)) for name, each in fields_of(member, own).items()}


def kind_of(info: inspect.Type) -> type:
    """Return the kind of column for values of a type; ``object`` if it is none of KINDS."""
    given = types_of(info)
    if given and all(_is_text(each) for each in given):
        return str
    return next((kind for infos, kind in KINDS if given and all(isinstance(each, infos) for each in given)), object)


def types_of(info: inspect.Type) -> list[inspect.Type]:
    """Return the types of a union, or the one type, without None."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    types = info.types if isinstance(info, inspect.UnionType) else (info,)
    return [each for each in types if not isinstance(each, inspect.NoneType)]


def _is_text(info: inspect.Type) -> bool:
    if isinstance(info, inspect.LiteralType):
        return all(isinstance(each, str) for each in info.values)
    if isinstance(info, inspect.EnumType):
        return all(isinstance(each.value, str) for each in info.cls)
    return False


def getter(names: Sequence[str], *, by_key: bool) -> Callable[[Any], Sequence[Any]]:
    """Return a function that returns the values of an event's fields."""
    if by_key:
        return lambda event: [event.get(name) for name in names]
    if len(names) == 1:
        return lambda event: (getattr(event, names[0]),)
    return attrgetter(*names)


def in_utc(value: datetime) -> datetime:
    """Return a time in UTC; one without offset counts as UTC."""
    try:
        return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)
    except OverflowError as error:
        raise Reject("a time has no form in UTC", code="time_out_of_range") from error


def _plain_text(value: Any) -> str:
    found = msgspec.to_builtins(value)
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


CONVERTERS: Mapping[type, Callable[[Any], Any]] = {
    datetime: in_utc,
    str: lambda value: value if type(value) is str else _plain_text(value),
    object: msgspec.to_builtins,
}
"""How a value becomes that of a column, by the column's kind; ``object`` is JSON."""
