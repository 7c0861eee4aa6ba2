"""Types of events: what a topic's records may be decoded into, and which fields an event has."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.wire import camel_case


class Member(NamedTuple):
    """One class of which events may be instances."""

    kind: type
    fields: Mapping[str, Any] | None
    """Annotation by field, in order; None if an event may have any field (``dict``)."""
    by_key: bool = False
    """Whether fields are items of a dict instead of attributes."""
    tag: str | int | None = None
    """Value of the field that tells the members of a union from one another."""


class EventType(NamedTuple):
    """The type of a topic's events."""

    of: Any
    """A Struct, a union of tagged Structs, a dataclass, a class of attrs, a TypedDict, ``dict`` or ``bytes``."""
    members: tuple[Member, ...]
    """The classes of events; one unless it is a union."""
    tag_field: str = ""
    """Field that holds the tag; empty unless it is a union."""

    @property
    def name(self) -> str:
        """The name of the type, or the names of a union's members."""
        return " | ".join(each.kind.__name__ for each in self.members)

    @property
    def both_spellings(self) -> bool:
        """Whether names of fields are accepted in camelCase too: the Struct has ``both_spellings = True``."""
        return len(self.members) == 1 and getattr(self.members[0].kind, "both_spellings", False) is True


BYTES = EventType(bytes, (Member(bytes, {}),))
"""Values as they are, never decoded."""


def event_type(found: Any) -> EventType:
    """Inspect a type. Raises TypeError that says why records cannot be decoded into it."""
    if found is bytes:
        return BYTES
    try:
        info = msgspec.inspect.type_info(found)
    except (TypeError, ValueError) as error:
        raise TypeError(f"msgspec cannot decode into it: {error}") from error
    if isinstance(info, msgspec.inspect.UnionType):
        return _union(found, info)
    member = _member(info)
    if member is None:
        raise TypeError(
            "it is not a Struct, a union of tagged Structs, a dataclass, a class of attrs, a TypedDict, dict or bytes"
        )
    made = EventType(found, (member,))
    if made.both_spellings:
        _require_both_spellings(member)
    return made


def _union(found: Any, info: msgspec.inspect.UnionType) -> EventType:
    members = [_member(each) for each in info.types]
    structs = [each for each in info.types if isinstance(each, msgspec.inspect.StructType)]
    if len(structs) != len(members) or any(each.tag_field is None for each in structs):
        raise TypeError("a union must be of Structs with a tag (class Paid(Event, tag=True))")
    if any(getattr(each.cls, "both_spellings", False) is True for each in structs):
        raise TypeError("a union is not read in both spellings; leave both_spellings out of its Structs")
    return EventType(found, tuple(each for each in members if each is not None), str(structs[0].tag_field))


def _member(info: Any) -> Member | None:
    inspect = msgspec.inspect
    if isinstance(info, inspect.StructType):
        if info.array_like:
            return None
        types = {field.name: field.type for field in msgspec.structs.fields(info.cls)}
        return Member(_class_of(info), types, tag=info.tag)
    if isinstance(info, inspect.DataclassType | inspect.TypedDictType):
        hints = typing.get_type_hints(_class_of(info))
        by_key = isinstance(info, inspect.TypedDictType)
        return Member(_class_of(info), {field.name: hints[field.name] for field in info.fields}, by_key)
    return Member(dict, None, by_key=True) if isinstance(info, inspect.DictType) else None


def _class_of(info: Any) -> type:
    """Return the class that events are instances of; ``Box[int]`` is none."""
    found: type = typing.get_origin(info.cls) or info.cls
    return found


def _require_both_spellings(member: Member) -> None:
    config = getattr(member.kind, "__struct_config__", None)
    if config is None or not config.forbid_unknown_fields or config.tag is not None:
        raise TypeError("both_spellings needs a Struct without a tag and with forbid_unknown_fields=True")
    if any(field.name != field.encode_name for field in msgspec.structs.fields(member.kind)):
        raise TypeError("both_spellings: the Struct renames fields; leave rename out")
    spelled = [each for name in member.fields or () for each in {name, camel_case(name)}]
    if twice := next((each for each in spelled if spelled.count(each) > 1), None):
        raise TypeError(f"both_spellings: two fields of the Struct may be written {twice}; rename one")
