"""The settings as a person may see them: every value with its origin, without secrets and without values of options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import LOG_EVERYTHING, SECRETS, RouteSettings, Settings

HIDDEN_SETTINGS = (
    SECRETS
    | {f"{name}_file" for name in SECRETS}  # by mistake they may hold the secrets themselves
    | {
        f"kafka.security.{name}"
        for name in ("username", "oauth_client_id", "token_file", "key_file", "certificate_file")
    }
)
HIDDEN = "hidden"


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return the value of each setting by name, without routes and with secrets as ``hidden``."""
    found: dict[str, Any] = {}
    for name in MEANINGS:
        if isinstance(getattr(settings, name.partition(".")[0]), list) and "." in name:
            continue
        value: Any = settings
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = HIDDEN if name in HIDDEN_SETTINGS and value else value
    return found


def listing(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Return a line for each setting and each route: ``name = value  # origin``."""
    for name, value in plain_settings(settings).items():
        shown = HIDDEN if value == HIDDEN and name in HIDDEN_SETTINGS else msgspec.json.encode(value).decode()
        yield f"{name} = {shown}  # {origins.get(name, 'default')}"
    for index, each in enumerate(settings.schemas):
        how = f"{each.topic} → {each.type} ({each.format}, framing {each.framing})"
        yield f"schemas[{index}]: {how}  # {origins.get('schemas', 'default')}"
    for index, route in enumerate(settings.routes or [LOG_EVERYTHING]):
        yield f"routes[{index}]: {_described(route)}  # {origins.get('routes', 'default')}"


def _described(route: RouteSettings) -> str:
    """Describe a route by its name and handler; of its match and its options only the names."""
    parts = [f"{route.name} → {route.handler}"]
    if route.topics:
        parts.append(f"topics {', '.join(route.topics)}")
    if route.match:
        parts.append(f"match {', '.join(route.match)}")
    if route.options:
        parts.append(f"options {', '.join(route.options)}")
    defaults = RouteSettings(name="", handler="")
    limits = (
        "threaded",
        "timeout_seconds",
        "max_records",
        "max_seconds",
        "flush_seconds",
        "tombstones",
        "unknown_tags",
    )
    changed = [name for name in limits if getattr(route, name) != getattr(defaults, name)]
    return "; ".join([*parts, *(f"{name} {msgspec.json.encode(getattr(route, name)).decode()}" for name in changed)])
