"""Matches on the fields of an event, compiled and type-checked once at start."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fnmatch import translate
from typing import Any

import msgspec

from consumer.errors import SettingsError, hint

Predicate = Callable[[Any], bool]

_IS = {"null": lambda value: value is None, "present": lambda value: value is not None}
_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def compile_match(event_type: type[msgspec.Struct], match: Mapping[str, Any], where: str) -> Predicate | None:
    """Compile a route's ``match`` into one function of the event; None when every event matches.

    ``where`` names the route in errors. A field is matched against a value, a case-sensitive glob, a list of them,
    ``{is = "null"}`` or ``{is = "present"}``; all fields must hold. ``false`` matches a missing or null boolean too:
    most sessions omit ``is_test``. Raises SettingsError for a field or a type that the event does not have.
    """
    fields = {field.name: field for field in msgspec.structs.fields(event_type)}
    terms: list[str] = []
    tests: dict[str, Any] = {}
    for name, wanted in match.items():
        if name not in fields:
            raise SettingsError(f"{where}.match: {event_type.__name__} has no field {name!r}{hint(name, fields)}")
        test = f"test{len(terms)}"
        tests[test] = _value_test(wanted, _types_of(fields[name].type), f"{where}.match.{name}")
        terms.append(_term(f"event.{name}", test, tests))
    if not terms:
        return None
    # One expression costs half of a chain of calls. It holds only names of fields and tests, no text of the settings.
    predicate: Predicate = eval(f"lambda event: {' and '.join(terms)}", tests)  # noqa: S307
    return predicate


def fused(predicates: Sequence[Predicate | None], found: Mapping[tuple[bool, ...], Any]) -> Callable[[Any], Any]:
    """Return one function that looks up in ``found`` which predicates an event does not match.

    One expression with a lookup costs half of a loop over the predicates. A predicate that raises makes it raise.
    """
    terms = ["False" if each is None else f"not match{index}(event)" for index, each in enumerate(predicates)]
    names = {f"match{index}": each for index, each in enumerate(predicates)} | {"found": found}
    function: Callable[[Any], Any] = eval(f"lambda event: found[({', '.join([*terms, ''])})]", names)  # noqa: S307
    return function


def _term(field: str, test: str, tests: Mapping[str, Any]) -> str:
    if tests[test] is _is_false:
        return f"not {field}"
    if isinstance(tests[test], _Glob):
        return f"{test}[{field}]"
    return f"{test}({field})"


def _is_false(value: Any) -> bool:
    return not value


def _value_test(wanted: Any, types: set[type], where: str) -> Predicate:
    if isinstance(wanted, list):
        tests = [_value_test(each, types, where) for each in wanted]
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
        return _Glob(wanted)
    if wanted is False:
        return _is_false
    return lambda value: value == wanted


class _Glob(dict[Any, bool]):
    """Cache of one glob's results, by value. Values repeat, and a cached result costs a tenth of a new one.

    Values longer than ``LONGEST`` characters are not kept: that many values of a megabyte each would be a gigabyte.
    """

    LIMIT = 1024
    LONGEST = 100

    def __init__(self, pattern: str) -> None:
        self._matches = re.compile(translate(pattern)).match

    def __missing__(self, value: str | None) -> bool:
        found = value is not None and self._matches(value) is not None
        if value is None or len(value) <= self.LONGEST:
            if len(self) >= self.LIMIT:
                self.clear()
            self[value] = found
        return found

    def __call__(self, value: str | None) -> bool:
        return self[value]


def _types_of(annotation: Any) -> set[type]:
    """Return the Python types that values of a field may have, without None."""
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
