"""Settings in the environment, and the variables there that only look like settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from consumer.errors import SettingsError
from consumer.settings.sections import SECRETS

PREFIX = "SESSION_CONSUMER_"
NAME = rf"{PREFIX.rstrip('_')}(?:_[A-Z0-9_]*[A-Z0-9])?"
"""What variables of a Kubernetes Service begin with, if it is called ``session-consumer`` or ``session-consumer-…``.

The name of a Service may hold ``--``, and then its variables hold ``__``. It never ends with ``-``, so
``SESSION_CONSUMER_HTTP__PORT`` is a setting.
"""
PART = re.compile(
    rf"{NAME}_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO|PORT|ADDR))"
)
WHOLE = re.compile(rf"{NAME}_PORT(?:_\d+_(?:TCP|UDP|SCTP))?")
ADDRESS = re.compile(r"(?:tcp|udp|sctp)://\S+")


class Given(NamedTuple):
    """The text of one setting, and where it comes from."""

    name: str
    text: str
    origin: str


def is_of_a_service(variable: str, text: str) -> bool:
    """Whether Kubernetes makes this variable, with such a value, for a Service.

    ``SESSION_CONSUMER_HTTP_PORT=8000`` is not: of a Service called session-consumer-http that would be a URL.
    """
    is_whole = WHOLE.fullmatch(variable) and ADDRESS.fullmatch(text)
    return bool(PART.fullmatch(variable) or is_whole)


def from_environment(environment: Mapping[str, str]) -> list[Given]:
    """Return the settings in the environment, by name. Raises SettingsError for one that is set twice."""
    found: dict[str, Given] = {}
    for variable in sorted(environment):
        text = environment[variable]
        if not variable.startswith(PREFIX) or is_of_a_service(variable, text):
            continue
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if name in found:
            raise SettingsError(f"{name}: {found[name].origin} and {variable} are both set; set one of them")
        if name in SECRETS:
            text = text.rstrip("\r\n")
        found[name] = Given(name, text, f"environment variable {variable}")
    return list(found.values())
