"""The smallest document of a type of events: a value for each field that must be there."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.formats import CODECS
from schemas.types import BYTES, EventType

inspect = msgspec.inspect
EXAMPLES: dict[type, Any] = {
    inspect.AnyType: None,
    inspect.NoneType: None,
    inspect.BoolType: False,
    inspect.BytesType: "",
    inspect.DateTimeType: "2026-01-01T00:00:00",
    inspect.TimeType: "00:00:00",
    inspect.DateType: "2026-01-01",
    inspect.TimeDeltaType: "PT1S",
    inspect.UUIDType: "00000000-0000-4000-8000-000000000000",
    inspect.DecimalType: "1",
}
"""Examples by class of type."""


class NoExampleError(ValueError):
    """No document of a type can be made up."""


def example_document(kind: EventType, form: str) -> Any:
    """Return a document that decodes into an event, or bytes; ``form`` is that of ``[[schemas]]``.

    Raises NoExampleError, which names what cannot be made up.
    """
    if kind is BYTES:
        return b"value"
    codec = CODECS[form]
    try:
        found = _example(inspect.type_info(kind.of))
        codec.decode(codec.encode(found), type=kind.of)
    except RecursionError:
        raise NoExampleError("a value of it holds another one without end") from None
    except msgspec.ValidationError as error:
        raise NoExampleError(str(error)) from None
    return found


def _example(info: Any) -> Any:
    found: Any
    match info:
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
            found = {field.encode_name: _example(field.type) for field in info.fields if field.required}
            if isinstance(info, inspect.StructType) and info.tag_field is not None:
                found = {info.tag_field: info.tag, **found}
        case inspect.UnionType():
            found = None if info.includes_none else _example(info.types[0])
        case inspect.Metadata():
            found = _example(info.type)
        case inspect.LiteralType():
            found = info.values[0]
        case inspect.EnumType():
            found = next(iter(info.cls)).value
        case inspect.TupleType():
            found = [_example(each) for each in info.item_types]
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            found = [_example(info.item_type)] * info.min_length if info.min_length else []
        case inspect.DictType():
            found = {}
        case _:
            found = _scalar(info)
    return found


def _scalar(info: Any) -> Any:
    match info:
        case inspect.IntType() | inspect.FloatType():
            return _number(info)
        case inspect.StrType():
            return "x" * max(1, info.min_length or 0)
        case inspect.DateTimeType() | inspect.TimeType():
            return EXAMPLES[type(info)] + ("" if info.tz is False else "Z")
    if type(info) not in EXAMPLES:
        raise NoExampleError(f"a value of {type(info).__name__.removesuffix('Type')} cannot be made up")
    return EXAMPLES[type(info)]


def _number(info: Any) -> Any:
    """Return a number within the limits of a type, preferably 1."""
    step = info.multiple_of or 1
    low = info.ge if info.ge is not None else info.gt + step if info.gt is not None else None
    high = info.le if info.le is not None else info.lt - step if info.lt is not None else None
    found = step
    if low is not None and found < low:
        found = low
    return high if high is not None and found > high else found
