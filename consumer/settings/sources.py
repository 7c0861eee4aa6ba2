"""Sources of settings: defaults, then one TOML file, then the environment, then ``--set``; the last one wins."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from consumer.errors import SettingsError, hint
from consumer.settings.checks import check_relations
from consumer.settings.sections import SECRETS, RouteSettings, Settings

PREFIX = "SESSION_CONSUMER_"
KUBERNETES = re.compile(rf"{PREFIX}(SERVICE_(HOST|PORT.*)|PORT|PORT_\d+_(TCP|UDP|SCTP).*)")
"""Variables that Kubernetes sets in every container for a Service called ``session-consumer``."""

JSON_WORDS = {"array": "a list", "object": "a table", "Object missing required field": "it needs the key"}


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and the source of each value that is not a default, by setting."""

    settings: Settings
    origins: dict[str, str]


def load_settings(file: Path | None, environment: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Read all sources and check names, types and relations.

    Raises SettingsError that names the setting and its source.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        tree = _read_toml(file)
        _check_names(tree, Settings, "", str(file))
        _note_origins(tree, "", str(file), origins)
    for name, text, origin in [*_from_environment(environment), *_from_overrides(overrides)]:
        value = _parse(name, text, origin)
        if name == "routes":
            _check_names({"routes": value}, Settings, "", origin)
        _put(tree, name, value)
        origins[name] = origin
    _choose_topics(tree.get("kafka"), origins)
    try:
        settings = msgspec.convert(tree, Settings)
    except UnicodeEncodeError:
        raise SettingsError("a setting holds bytes that are not UTF-8") from None
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    check_relations(settings)
    return Loaded(_with_absolute_paths(settings, file), origins)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    found = []
    for variable in sorted(environment):
        if not variable.startswith(PREFIX):
            continue
        if KUBERNETES.fullmatch(variable):
            continue
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        text = environment[variable]
        if name.removesuffix("_file") in SECRETS:
            name = name.removesuffix("_file")
            if variable.lower().endswith("_file"):
                text = _read_secret(variable, text)
        found.append((name, text, f"environment variable {variable}"))
    return found


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"environment variable {variable}: cannot read the file it names: {error}") from error


def _from_overrides(overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    found = []
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        if any(name.startswith(secret) for secret in SECRETS):
            name = next(secret for secret in SECRETS if name.startswith(secret))
            raise SettingsError(
                f"--set {name}: a secret on the command line is visible in ps; set it in the environment"
            )
        if not equals:
            raise SettingsError(f"--set {name}: write it as key=value")
        found.append((name, text.strip(), "--set"))
    return found


def _parse(name: str, text: str, origin: str) -> Any:
    """Parse a value from text by the type of its setting: number, boolean, comma-separated list or TOML."""
    kind = _type_of(name, origin)
    try:
        if kind == list[str]:
            return [part.strip() for part in text.split(",") if part.strip()]
        if kind in (int, float, bool):
            return msgspec.convert(text.replace("_", ""), kind, strict=False)
        if _is_literal_or_text(kind):
            return text
        return tomllib.loads(f"value = {text}")["value"]
    except (msgspec.ValidationError, ValueError, RecursionError):
        expected = getattr(kind, "__name__", "TOML") if kind in (int, float, bool) else "a TOML value"
        shown = f", got {text!r}" if kind in (int, float, bool) else ""  # routes hold options, which may be secrets
        raise SettingsError(f"{name} ({origin}): expected {expected}{shown}") from None


def _is_literal_or_text(kind: Any) -> bool:
    return isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.StrType | msgspec.inspect.LiteralType)


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
        if name == "routes" and isinstance(value, list):
            for index, route in enumerate(value):
                if isinstance(route, Mapping):
                    _check_names(route, RouteSettings, f"routes[{index}].", origin)


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
        shown = f"{message.removeprefix('Invalid enum value ')} is not one of {', '.join(get_args(_type_of(name, '')))}"
    return f"{name}{f' ({origin})' if origin else ''}: {shown}"


def _with_absolute_paths(settings: Settings, file: Path | None) -> Settings:
    """Make the folders of ``path`` absolute: they are relative to the settings file, not to the working directory."""
    folder = file.resolve().parent if file is not None else Path.cwd()
    return msgspec.structs.replace(settings, path=[str(folder / entry) for entry in settings.path])
