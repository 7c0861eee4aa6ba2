"""Matches on the fields of an event and on its record, compiled and type-checked once at start."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from fnmatch import translate
from typing import Any, NamedTuple

import msgspec

from consumer.errors import SettingsError, hint
from schemas.formats import UnknownTag
from schemas.types import EventType, Member

Predicate = Callable[[Any, Any], bool]
"""Takes an event and its raw record."""
Test = Callable[[Any], bool]

_IS = {"null": lambda value: value is None, "present": lambda value: value is not None}
_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
ANY = frozenset(_NAMES)
"""Types of values that a field of any type may have."""
HEADER = "header."
RECORD = "record."
EVENT = "event."
OF_RECORDS = ("key", "topic")


class Match(NamedTuple):
    """A compiled match."""

    predicate: Predicate | None
    """None when every event matches."""
    members: tuple[Member, ...]
    """Classes of events that may match."""


def compile_match(kind: EventType, match: Mapping[str, Any], where: str, *, unknown_tags: bool = False) -> Match:
    """Compile a route's ``match`` into one function of the event and its record.

    ``where`` names the route in errors. A field is matched against a value, a case-sensitive glob, a list of them,
    ``{is = "null"}`` or ``{is = "present"}``; all fields must hold. ``false`` matches a missing or null boolean too:
    most sessions omit ``is_test``. ``header.NAME`` and ``key`` are those of the record, as text; ``topic`` is not
    tested here (``wants_topic``). With ``unknown_tags`` it matches the records whose tag no type of the topic has.

    Raises SettingsError for a field or a type that the events do not have.
    """
    of_event, of_record = _split(kind, match, where)
    if unknown_tags:
        _require_tag(kind, of_event, where)
        return Match(_by_type({UnknownTag: _of_member(kind, Member(UnknownTag, {}), {}, of_record, where)}), ())
    _require_fields(kind, of_event, where)
    wanted = [each for each in kind.members if _has_tag(kind, each, of_event, where)]
    found = {each.kind: _of_member(kind, each, of_event, of_record, where) for each in wanted}
    if not kind.tag_field:
        return Match(found[kind.members[0].kind], kind.members)
    return Match(_by_type(found), tuple(wanted))


def wants_topic(match: Mapping[str, Any], topic: str, where: str) -> bool:
    """Whether the match of a route lets records of a topic through; raises SettingsError for a wrong test."""
    wanted = [match[name] for name in ("topic", "record.topic") if name in match]
    return all(_value_test(each, {str}, f"{where}.match.topic")(topic) for each in wanted)


def fused(predicates: Sequence[Predicate | None], found: Mapping[tuple[bool, ...], Any]) -> Callable[[Any, Any], Any]:
    """Return one function that looks up in ``found`` which predicates an event and its record do not match.

    One expression with a lookup costs half of a loop over the predicates. A predicate that raises makes it raise.
    """
    terms = ["False" if each is None else f"not match{index}(event, raw)" for index, each in enumerate(predicates)]
    names = {f"match{index}": each for index, each in enumerate(predicates)} | {"found": found}
    source = f"lambda event, raw: found[({', '.join([*terms, ''])})]"
    function: Callable[[Any, Any], Any] = eval(source, names)  # noqa: S307
    return function


def _split(kind: EventType, match: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is wanted of the event's fields, and of the record but its topic."""
    of_event, of_record = {}, {}
    names = {name for member in kind.members for name in member.fields or ()}
    for name, wanted in match.items():
        place = name.removeprefix(RECORD)
        if name in OF_RECORDS and name in names:
            raise SettingsError(
                f"{where}.match.{name}: the record and {kind.name} both have it; write record.{name} or event.{name}"
            )
        if name.startswith((HEADER, RECORD)) or name in OF_RECORDS:
            if not place.startswith(HEADER) and place not in OF_RECORDS:
                raise SettingsError(f"{where}.match.{name}: of a record, key, topic and header.NAME can be matched")
            of_record[place] = wanted
        else:
            of_event[name.removeprefix(EVENT)] = wanted
    of_record.pop("topic", None)
    return of_event, of_record


def _require_tag(kind: EventType, of_event: Mapping[str, Any], where: str) -> None:
    if not kind.tag_field:
        raise SettingsError(f"{where}.unknown_tags: {kind.name} is no union, so its records have no tag")
    if of_event:
        raise SettingsError(f"{where}.unknown_tags: such records have no fields; match on header.NAME or key")


def _require_fields(kind: EventType, of_event: Mapping[str, Any], where: str) -> None:
    """Raise SettingsError for a field that no event of the type has."""
    names = {name for member in kind.members for name in member.fields or ()} | {kind.tag_field}
    for name in of_event:
        if name not in names and all(member.fields is not None for member in kind.members):
            raise SettingsError(f"{where}.match: {kind.name} has no field {name!r}{hint(name, names - {''})}")


def _has_tag(kind: EventType, member: Member, of_event: Mapping[str, Any], where: str) -> bool:
    """Whether events of a member of a union have a tag that is wanted."""
    if not kind.tag_field or kind.tag_field not in of_event:
        return True
    tag: Any = member.tag
    return _value_test(of_event[kind.tag_field], {type(tag)}, f"{where}.match.{kind.tag_field}")(tag)


def _of_member(
    kind: EventType, member: Member, of_event: Mapping[str, Any], of_record: Mapping[str, Any], where: str
) -> Predicate | None:
    """Compile the match for events of one class; None if all of them match."""
    tests: dict[str, Any] = {"header": header_of, "text": text_of}
    terms = []
    for name, wanted in of_event.items():
        if name != kind.tag_field:
            test = _value_test(wanted, _types_in(kind, name), f"{where}.match.{name}")
            terms.append(_term(_field(member, name), test, tests))
    for name, wanted in of_record.items():
        value = "text(raw.key)" if name == "key" else f"header(raw.headers, {name.removeprefix(HEADER)!r})"
        terms.append(_term(value, _value_test(wanted, {str}, f"{where}.match.{name}"), tests))
    if not terms:
        return None
    # One expression costs half of a chain of calls. It holds names of fields, headers and tests, and no other text.
    predicate: Predicate = eval(f"lambda event, raw: {' and '.join(terms)}", tests)  # noqa: S307
    return predicate


def _field(member: Member, name: str) -> str:
    """Return the expression of a field; one that a member of a union does not have is None."""
    if member.by_key:
        return f"event.get({name!r})"
    return f"event.{name}" if name in (member.fields or ()) else "None"


def _by_type(found: Mapping[type, Predicate | None]) -> Predicate:
    """Return the predicate of a union: events of other classes do not match."""
    tests = {kind: test or _always for kind, test in found.items()}
    return lambda event, raw: tests.get(type(event), _never)(event, raw)


def _always(_event: Any, _raw: Any) -> bool:
    return True


def _never(_event: Any, _raw: Any) -> bool:
    return False


def text_of(value: bytes | None) -> str | None:
    """Return the bytes of a key or a header as text; what is not UTF-8 is replaced."""
    return None if value is None else value.decode(errors="replace")


def header_of(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """Return the last header of a name as text; None without one."""
    return next((text_of(value) for each, value in reversed(headers) if each == name), None)


def _term(value: str, wanted: Test, tests: dict[str, Any]) -> str:
    """Return the expression of one test, which is added to ``tests``."""
    if wanted is _is_false:
        return f"not {value}"
    test = f"test{len(tests)}"
    tests[test] = wanted
    return f"{test}[{value}]" if isinstance(wanted, _Glob) else f"{test}({value})"


def _is_false(value: Any) -> bool:
    return not value


def _value_test(wanted: Any, types: Collection[type], where: str) -> Test:
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
        glob = _Glob(wanted)
        return glob if types is not ANY else lambda value: isinstance(value, str) and glob[value]
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


def _types_in(kind: EventType, name: str) -> Collection[type]:
    """Return the types that values of a field may have, in any class of events."""
    if any(member.fields is None for member in kind.members):
        return ANY
    known = [member.fields[name] for member in kind.members if member.fields is not None and name in member.fields]
    return {each for annotation in known for each in _types_of(annotation)}


def _types_of(annotation: Any) -> set[type]:
    """Return the Python types that values of a field may have, without None."""
    if annotation is Any:
        return set(ANY)
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
