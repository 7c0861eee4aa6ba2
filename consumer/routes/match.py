"""Matches on the fields of an event and on its record, compiled and type-checked once at start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from consumer.errors import SettingsError, hint
from consumer.routes.values import Glob, Test, is_false, types_in, value_test
from schemas.formats import UnknownTag
from schemas.types import BYTES, EventType, Member

Predicate = Callable[[Any, Any], bool]
"""Takes an event and its raw record."""
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
        (as_bytes,) = BYTES.members
        return Match(_by_type({UnknownTag: _of_member(kind, as_bytes, {}, of_record, where)}), BYTES.members)
    _require_fields(kind, of_event, where)
    wanted = [each for each in kind.members if _has_tag(kind, each, of_event, where)]
    if not wanted:
        tags = ", ".join(repr(each.tag) for each in kind.members)
        raise SettingsError(f"{where}.match.{kind.tag_field}: no type of {kind.name} has such a tag; they have {tags}")
    found = {each.kind: _of_member(kind, each, of_event, of_record, where) for each in wanted}
    if not kind.tag_field:
        return Match(found[kind.members[0].kind], kind.members)
    return Match(_by_type(found), tuple(wanted))


def wants_topic(match: Mapping[str, Any], topic: str, where: str) -> bool:
    """Whether the match of a route lets records of a topic through; raises SettingsError for a wrong test."""
    wanted = [match[name] for name in ("topic", "record.topic") if name in match]
    return all(value_test(each, {str}, f"{where}.match.topic")(topic) for each in wanted)


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
    return value_test(of_event[kind.tag_field], {type(tag)}, f"{where}.match.{kind.tag_field}")(tag)


def _of_member(
    kind: EventType, member: Member, of_event: Mapping[str, Any], of_record: Mapping[str, Any], where: str
) -> Predicate | None:
    """Compile the match for events of one class; None if all of them match."""
    tests: dict[str, Any] = {"header": header_of, "text": text_of}
    terms = []
    for name, wanted in of_event.items():
        if name != kind.tag_field:
            test = value_test(wanted, types_in(kind, name), f"{where}.match.{name}")
            terms.append(_term(_field(member, name), test, tests))
    for name, wanted in of_record.items():
        value = "text(raw.key)" if name == "key" else f"header(raw.headers, {name.removeprefix(HEADER)!r})"
        terms.append(_term(value, value_test(wanted, {str}, f"{where}.match.{name}"), tests))
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
    if wanted is is_false:
        return f"not {value}"
    test = f"test{len(tests)}"
    tests[test] = wanted
    return f"{test}[{value}]" if isinstance(wanted, Glob) else f"{test}({value})"
