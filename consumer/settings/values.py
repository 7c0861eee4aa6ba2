"""Values from text: what stands in the environment and in ``--set`` becomes a value of its setting's type."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec

from consumer.errors import SettingsError
from consumer.settings.ranges import range_of

QUOTES = "\"'"
LIST_FORM = 'a,b or ["a", "b"]'


def parse(name: str, kind: Any, text: str, origin: str) -> Any:
    """Return the value of a setting of type ``kind``. Raises SettingsError that names the setting and its origin.

    Quotes around a value are dropped: shells and env files keep or drop them by rules of their own.
    """
    text = text.strip()
    try:
        if kind == list[str]:
            return _list(text)
        if kind in (int, float, bool):
            return msgspec.convert(_unquoted(text).replace("_", ""), kind, strict=False)
        if isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.StrType | msgspec.inspect.LiteralType):
            return _unquoted(text)
        return tomllib.loads(f"value = {text}")["value"]
    except (msgspec.ValidationError, ValueError, RecursionError):
        raise SettingsError(f"{name} ({origin}): expected {_expected(kind, text)}{range_of(name)}") from None


def _expected(kind: Any, text: str) -> str:
    """Describe what was expected. Routes are not quoted: they hold options, which may be secrets."""
    if kind == list[str]:
        return f"a list of strings, such as {LIST_FORM}"
    return f"{kind.__name__}, got {text!r:.60}" if kind in (int, float, bool) else "a TOML value"


def _list(text: str) -> list[str]:
    """Read ``a,b``, ``"a","b"`` or ``["a","b"]``; spaces and empty parts are dropped. Raises ValueError."""
    if text.startswith("[") and text.endswith("]"):  # not an IPv6 address, which a port follows
        return msgspec.convert(tomllib.loads(f"value = {text}")["value"], list[str])
    parts = [_unquoted(part.strip()) for part in _unquoted(text).split(",")]
    if any(part.startswith(tuple(QUOTES)) or part.endswith(tuple(QUOTES)) for part in parts):
        raise ValueError(text)
    return [part for part in parts if part]


def _unquoted(text: str) -> str:
    """Drop the quotes around a text that holds no others of their kind."""
    quoted = len(text) > 1 and text[0] in QUOTES and text[0] == text[-1] and text.count(text[0]) == 2
    return text[1:-1] if quoted else text
