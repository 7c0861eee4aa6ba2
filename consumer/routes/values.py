"""Tests of single values in matches: equality, globs, lists, null and present."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import datetime
from fnmatch import translate
from typing import Any

import msgspec

from consumer.errors import SettingsError
from schemas.types import EventType

Test = Callable[[Any], bool]


def is_null(value: Any) -> bool:
    """Whether a value is null or missing."""
    return value is None or value is msgspec.UNSET


_IS = {"null": is_null, "present": lambda value: not is_null(value)}
_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
ANY = frozenset(_NAMES)
"""Types of values that a field of any type may have."""


KINDS: dict[type, type] = {
    msgspec.inspect.StrType: str,
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: float,
    msgspec.inspect.DateTimeType: datetime,
}
"""Python types by class of type."""


def is_false(value: Any) -> bool:
    """Whether a boolean is false, null or missing."""
    return not value


def value_test(wanted: Any, types: Collection[type], where: str) -> Test:
    """Compile what is wanted of one value of these types; ``where`` names it in errors. Raises SettingsError."""
    if isinstance(wanted, list):
        tests = [value_test(each, types, where) for each in wanted]
        if not tests:
            raise SettingsError(f"{where}: an empty list matches nothing; remove the field, or name a value")
        return lambda value: any(test(value) for test in tests)
    if isinstance(wanted, dict):
        if set(wanted) != {"is"} or wanted["is"] not in list(_IS):
            raise SettingsError(f'{where}: a table must be {{ is = "null" }} or {{ is = "present" }}')
        return _IS[wanted["is"]]
    if type(wanted) not in types and not (type(wanted) is int and float in types):
        expected = " or ".join(_NAMES[each] for each in types if each in _NAMES) or 'a table such as { is = "null" }'
        raise SettingsError(f"{where}: expected {expected}, got {type(wanted).__name__}")
    if isinstance(wanted, str) and any(character in wanted for character in "*?["):
        glob = Glob(wanted)
        return glob if set(types) == {str} else lambda value: isinstance(value, str) and glob[value]
    if wanted is False:  # 0 and "" are not false
        return is_false if set(types) == {bool} else lambda value: value is False or is_null(value)
    if bool not in types:
        return lambda value: value == wanted
    return lambda value: value == wanted and (type(value) is bool) == (wanted is True)  # 1 is not true


class Glob(dict[Any, bool]):
    """Cache of one glob's results, by value. Values repeat, and a cached result costs a tenth of a new one.

    Values longer than ``LONGEST`` characters are not kept: that many values of a megabyte each would be a gigabyte.
    """

    LIMIT = 1024
    LONGEST = 100

    def __init__(self, pattern: str) -> None:
        self._matches = re.compile(translate(pattern)).match

    def __missing__(self, value: str | msgspec.UnsetType | None) -> bool:
        found = isinstance(value, str) and self._matches(value) is not None
        if not isinstance(value, str) or len(value) <= self.LONGEST:
            if len(self) >= self.LIMIT:
                self.clear()
            self[value] = found
        return found

    def __call__(self, value: str | None) -> bool:
        return self[value]


def types_in(kind: EventType, name: str) -> Collection[type]:
    """Return the types that values of a field may have, in any class of events."""
    if any(member.fields is None for member in kind.members):
        return ANY
    known = [member.fields[name] for member in kind.members if member.fields is not None and name in member.fields]
    return {each for annotation in known for each in _types_of(annotation)}


def _types_of(annotation: Any) -> set[type]:
    """Return the Python types that values of a field may have, without None; ``object`` for those of no match."""
    return _types_in(msgspec.inspect.type_info(annotation))


def _types_in(info: Any) -> set[type]:
    inspect = msgspec.inspect
    found: set[type]
    match info:
        case inspect.UnionType():
            found = {each for member in info.types for each in _types_in(member)}
        case inspect.Metadata():
            found = _types_in(info.type)
        case inspect.AnyType():
            found = {*ANY, object}
        case inspect.LiteralType():
            found = {type(each) for each in info.values if each is not None}
        case inspect.EnumType():
            found = {kind for kind in (str, int) if issubclass(info.cls, kind)} or {object}
        case inspect.NoneType():
            found = set()
        case _:
            found = {KINDS.get(type(info), object)}
    return found
