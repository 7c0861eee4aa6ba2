"""Handlers loaded by reference from a module that a test wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.routes.handler import Handler
from consumer.routes.load import load_handler
from consumer.routes.route import Route
from consumer.routes.topics import Schema, Topics
from consumer.settings.sections import RouteSettings
from schemas.session import Session
from schemas.types import event_type

SECRET = "hunter2-s3cret"
WHERE = "routes[0] (r)"

Write = Callable[[str], None]


def load_reference(reference: str, options: dict[str, Any] | None = None, **environment: str) -> Handler:
    """Load a handler as a route has it that gets sessions."""
    handler = load_handler(RouteSettings("r", reference, options=options or {}), WHERE, environment, 1)
    topics = Topics([("*", Schema(event_type(Session)))], [Route("r", None, handler, where=WHERE)])
    return topics.of("sessions").routes[0].handler


def load(attribute: str, options: dict[str, Any] | None = None, **environment: str) -> Handler:
    return load_reference(f"mine:{attribute}", options, **environment)


def refusal(attribute: str, options: dict[str, Any] | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(attribute, options, **environment)
    return str(refused.value)
