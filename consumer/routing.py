"""Which routes want an event: matches on its fields, compiled and type-checked once at start."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from fnmatch import translate
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from consumer.errors import SettingsError, hint

Predicate = Callable[[Any], bool]

_IS = {"null": lambda value: value is None, "present": lambda value: value is not None}
_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def compile_match(event_type: type[msgspec.Struct], match: Mapping[str, Any], where: str) -> Predicate | None:
    """Turn a route's ``match`` into one function of the event; None when every event matches.

    ``where`` names the route in errors. A field is matched against a value, a case-sensitive glob, a list of them,
    ``{is = "null"}`` or ``{is = "present"}``; all fields must hold. ``false`` matches a missing or null boolean too:
    most sessions omit ``is_test``. Raises SettingsError for a field or a type that the event does not have.
    """
    fields = {field.name: field for field in msgspec.structs.fields(event_type)}
    tests: list[tuple[Callable[[Any], Any], Predicate]] = []
    for name, wanted in match.items():
        if name not in fields:
            raise SettingsError(f"{where}.match: {event_type.__name__} has no field {name!r}{hint(name, fields)}")
        tests.append((attrgetter(name), _value_test(wanted, _types_of(fields[name].type), f"{where}.match.{name}")))
    if not tests:
        return None
    if len(tests) == 1:
        ((get, test),) = tests
        return lambda event: test(get(event))
    return lambda event: all(test(get(event)) for get, test in tests)


def _value_test(wanted: Any, types: set[type], where: str) -> Predicate:
    if isinstance(wanted, list):
        tests = [_value_test(each, types, where) for each in wanted]
        if not tests:
            raise SettingsError(f"{where}: an empty list matches nothing; leave the field out, or name a value")
        return lambda value: any(test(value) for test in tests)
    if isinstance(wanted, dict):
        if set(wanted) != {"is"} or wanted["is"] not in list(_IS):
            raise SettingsError(f'{where}: a table here is {{ is = "null" }} or {{ is = "present" }}')
        return _IS[wanted["is"]]
    if type(wanted) not in types and not (type(wanted) is int and float in types):
        expected = " or ".join(_NAMES[each] for each in types if each in _NAMES) or 'a table such as { is = "null" }'
        raise SettingsError(f"{where}: expected {expected}, got {type(wanted).__name__}")
    if isinstance(wanted, str) and any(character in wanted for character in "*?["):
        return _glob(wanted)
    if wanted is False:
        return lambda value: not value
    return lambda value: value == wanted


def _glob(pattern: str) -> Predicate:
    matches = re.compile(translate(pattern)).match

    # Types and services are few and repeat: a cached answer costs a third of running the pattern.
    @lru_cache(maxsize=1024)
    def test(value: str | None) -> bool:
        return value is not None and matches(value) is not None

    return test


def _types_of(annotation: Any) -> set[type]:
    """Python types, None left out, that values of a field may have."""
    info = msgspec.inspect.type_info(annotation)
    infos = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    kinds = {
        msgspec.inspect.StrType: str,
        msgspec.inspect.BoolType: bool,
        msgspec.inspect.IntType: int,
        msgspec.inspect.FloatType: float,
        msgspec.inspect.DateTimeType: datetime,
    }
    return {kinds[type(each)] for each in infos if type(each) in kinds}
