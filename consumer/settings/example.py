"""A settings file to start from: every setting with its meaning and its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any, get_args, get_origin

import msgspec

from consumer.settings.meanings import MEANINGS
from consumer.settings.ranges import RANGES
from consumer.settings.sections import LOG_EVERYTHING, Settings

HEAD = """\
# Settings of session-consumer, each with its default. To change one, remove the # before its name.
# The environment overrides this file, for example SESSION_CONSUMER_KAFKA__BOOTSTRAP_SERVERS=a:9092,b:9092.
"""
SET = {"kafka.bootstrap_servers", "kafka.topics", "kafka.group_id", "routes.name", "routes.handler"}
"""Settings that the example sets, because most users change them."""
VALUES = {
    "schemas.topic": "session-events",
    "routes.name": LOG_EVERYTHING.name,
    "routes.handler": LOG_EVERYTHING.handler,
    "routes.timeout_seconds": 30.0,
    "routes.max_records": 500,
    "routes.max_seconds": 1.0,
    "routes.flush_seconds": 5.0,
}
"""Values of settings that have no default."""
WIDTH = 100


def example() -> str:
    """Return a TOML file that sets the brokers, the topics, the group and one route; all else stands in comments."""
    parts = [HEAD]
    for section, names in groupby(MEANINGS, lambda name: name.rpartition(".")[0]):
        parts.append("\n".join([*_header(section), *(line for name in names for line in _lines(name))]) + "\n")
    return "\n".join(parts)


def field_of(name: str) -> msgspec.structs.FieldInfo:
    """Return the field of a setting."""
    struct: Any = Settings
    *sections, last = name.split(".")
    for part in sections:
        kind = _field(struct, part).type
        struct = get_args(kind)[0] if get_origin(kind) is list else kind
    return _field(struct, last)


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """Return a field's default; None if it has none."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default


def _field(struct: Any, name: str) -> msgspec.structs.FieldInfo:
    return next(each for each in msgspec.structs.fields(struct) if each.name == name)


def _header(section: str) -> Iterator[str]:
    if section:
        is_list = get_origin(field_of(section).type) is list
        used = any(name.rpartition(".")[0] == section for name in SET)
        yield f"{'#' if is_list and not used else ''}{f'[[{section}]]' if is_list else f'[{section}]'}"


def _lines(name: str) -> Iterator[str]:
    meaning = MEANINGS[name] + (f" A number {RANGES[name]}." if name in RANGES else "")
    yield from textwrap.wrap(meaning, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    value = VALUES.get(name, default_of(field_of(name)))
    yield f"{'' if name in SET else '#'}{name.rpartition('.')[2]} = {_toml(value)}"


def _toml(value: Any) -> str:
    """Write a value as TOML on one line."""
    match value:
        case msgspec.Struct():
            return _toml(msgspec.to_builtins(value))
        case dict():
            return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}" if value else "{}"
        case bool() | str() | list():
            return msgspec.json.encode(value).decode()
        case _:
            return f"{value:_}"
