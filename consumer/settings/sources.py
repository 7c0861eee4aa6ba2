"""Sources of settings: defaults, then one TOML file, then the environment, then ``--set``; the last one wins."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from consumer.errors import SettingsError, hint
from consumer.settings.checks import check_protocol, check_relations
from consumer.settings.environment import Given, from_environment
from consumer.settings.files import read_text, require_no_other_writer
from consumer.settings.ranges import range_of
from consumer.settings.sections import SECRETS, RouteSettings, SchemaSettings, Settings
from consumer.settings.values import parse

COMMAND_LINE = "--set"
ENTRIES = {"routes": RouteSettings, "schemas": SchemaSettings}
"""Settings that are lists of tables."""
JSON_WORDS = {"array": "a list", "object": "a table", "Object missing required field": "it needs the key"}


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and the source of each value that is not a default, by setting."""

    settings: Settings
    origins: dict[str, str]


def load_settings(file: Path | None, environment: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Read all sources and check names, types and relations.

    Raises SettingsError that names the setting and its source.
    """
    given = [*from_environment(environment), *_from_overrides(overrides)]
    values = {each: _value_of(each) for each in given}
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        allowed = {each.name: value for each, value in values.items()}.get("allow_writable", False)
        tree = _read_toml(file, allow_writable=allowed)
        _check_names(tree, Settings, "", str(file))
        _note_origins(tree, "", str(file), origins)
    for each, value in values.items():
        if each.name in ENTRIES:
            _check_names({each.name: value}, Settings, "", each.origin)
        _put(tree, each.name, value)
        origins[each.name] = each.origin
    _choose_topics(tree.get("kafka"), origins)
    try:
        settings = msgspec.convert(tree, Settings)
    except UnicodeEncodeError:
        raise SettingsError("a setting holds bytes that are not UTF-8") from None
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    settings = _with_absolute_paths(_with_heartbeat(settings, origins), file)
    check_protocol(settings.kafka, origins)
    check_relations(settings)
    return Loaded(settings, origins)


def _read_toml(file: Path, *, allow_writable: bool) -> dict[str, Any]:
    try:
        if not allow_writable:
            require_no_other_writer(file, f"settings file {file}")
        return tomllib.loads(read_text(file))
    except OSError as error:
        raise SettingsError(f"settings file {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error


def _from_overrides(overrides: Sequence[str]) -> list[Given]:
    found = []
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        if any(name.startswith(secret) and name != f"{secret}_file" for secret in SECRETS):
            name = next(secret for secret in SECRETS if name.startswith(secret))
            raise SettingsError(
                f"--set {name}: a secret on the command line is visible in ps; set it in the environment"
            )
        if not equals:
            raise SettingsError(f"--set {name}: write it as key=value")
        found.append(Given(name, text, COMMAND_LINE))
    return found


def _value_of(given: Given) -> Any:
    kind = _type_of(given.name, given.origin)
    return given.text if given.name in SECRETS else parse(given.name, kind, given.text, given.origin)


def _type_of(name: str, origin: str) -> Any:
    struct: Any = Settings
    walked = ""
    for part in name.split("."):
        fields = {field.name: field.type for field in _fields(struct)}
        if part not in fields:
            raise SettingsError(
                f"unknown setting {name!r} ({origin}){hint(walked + part, [walked + each for each in fields])}"
            )
        struct = fields[part]
        walked += f"{part}."
    if _fields(struct):
        first = f"{name}.{_fields(struct)[0].name}"
        raise SettingsError(f"{name!r} ({origin}) is a section; set one of its keys, such as {first}")
    return struct


def _fields(kind: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return msgspec.structs.fields(kind) if is_struct else ()


def _check_names(tree: Mapping[str, Any], struct: Any, above: str, origin: str) -> None:
    fields = {field.name: field.type for field in _fields(struct)}
    for name, value in tree.items():
        if name not in fields:
            near = hint(name, fields)
            raise SettingsError(f"unknown setting {above + name!r} ({origin}){near}")
        if isinstance(value, Mapping) and _fields(fields[name]):
            _check_names(value, fields[name], f"{above}{name}.", origin)
        if not above and name in ENTRIES and isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    _check_names(entry, ENTRIES[name], f"{name}[{index}].", origin)


def _choose_topics(kafka: Any, origins: Mapping[str, str]) -> None:
    """Drop the default topic when a pattern is set. Raises SettingsError when topics are set too."""
    if isinstance(kafka, dict) and kafka.get("topic_pattern"):
        if "topics" in kafka:
            pattern, topics = origins["kafka.topic_pattern"], origins["kafka.topics"]
            raise SettingsError(f"kafka.topic_pattern ({pattern}) and kafka.topics ({topics}): set only one of them")
        kafka["topics"] = []


def _note_origins(tree: Mapping[str, Any], above: str, origin: str, origins: dict[str, str]) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            _note_origins(value, f"{above}{name}.", origin, origins)
        else:
            origins[above + name] = origin


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {section} is not a section in the settings file; write it as [{section}]")
    tree[last] = value


def _explain(error: msgspec.ValidationError, origins: Mapping[str, str]) -> str:
    """Turn msgspec's ``Expected `int`, got `str` - at `$.kafka.fetch_bytes` `` into a message about the setting."""
    message, _, place = str(error).partition(" - at ")
    name = place.strip("`").removeprefix("$.") or "settings"
    origin = next((origins[each] for each in (name, name.partition("[")[0]) if each in origins), None)
    origin = origin or next((where for each, where in origins.items() if each.startswith(f"{name}.")), None)
    shown = message.replace("`", "").replace("Expected", "expected")
    for theirs, ours in JSON_WORDS.items():
        shown = shown.replace(theirs, ours)
    if message.startswith("Invalid enum value"):
        shown = f"{message.removeprefix('Invalid enum value ')} is not one of {', '.join(_words_of(name))}"
    return f"{name}{f' ({origin})' if origin else ''}: {shown}{range_of(name)}"


def _words_of(name: str) -> tuple[str, ...]:
    """Return the words that a setting may have; it may be one of an entry, such as ``schemas[0].format``."""
    section, _, rest = name.partition("[")
    if not rest:
        return get_args(_type_of(name, ""))
    field = rest.partition("].")[2]
    return next((get_args(each.type) for each in _fields(ENTRIES[section]) if each.name == field), ())


def _with_heartbeat(settings: Settings, origins: Mapping[str, str]) -> Settings:
    """Have the interval of heartbeats follow the session timeout, unless it is set."""
    kafka = settings.kafka
    if "kafka.heartbeat_interval_seconds" in origins:
        return settings
    seconds = min(kafka.heartbeat_interval_seconds, kafka.session_timeout_seconds / 3)
    return msgspec.structs.replace(settings, kafka=msgspec.structs.replace(kafka, heartbeat_interval_seconds=seconds))


def _with_absolute_paths(settings: Settings, file: Path | None) -> Settings:
    """Make the folders of ``path`` and the files that options point to absolute.

    They are relative to the settings file, not to the working directory.
    """
    folder = file.resolve().parent if file is not None else Path.cwd()
    routes = [
        msgspec.structs.replace(
            route, options={name: _pointing(value, folder) for name, value in route.options.items()}
        )
        for route in settings.routes
    ]
    return msgspec.structs.replace(settings, path=[str(folder / entry) for entry in settings.path], routes=routes)


def _pointing(value: Any, folder: Path) -> Any:
    """Return an option in which each ``{ file = "path" }`` has an absolute path."""
    if not isinstance(value, dict):
        return value
    if value.keys() == {"file"} and isinstance(value["file"], str):
        return {"file": str(folder / value["file"])}
    return {name: _pointing(each, folder) for name, each in value.items()}
