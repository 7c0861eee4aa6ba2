"""Handlers loaded by reference from a module that a test wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.routes.handler import Handler
from consumer.routes.load import load_handler
from consumer.settings.sections import RouteSettings

SECRET = "hunter2-s3cret"
WHERE = "routes[0] (r)"

Write = Callable[[str], None]


def load_reference(reference: str, options: dict[str, Any] | None = None, **environment: str) -> Handler:
    return load_handler(RouteSettings("r", reference, {}, options or {}), WHERE, environment, 1)


def load(attribute: str, options: dict[str, Any] | None = None, **environment: str) -> Handler:
    return load_reference(f"mine:{attribute}", options, **environment)


def refusal(attribute: str, options: dict[str, Any] | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(attribute, options, **environment)
    return str(refused.value)
