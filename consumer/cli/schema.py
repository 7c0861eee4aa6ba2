"""``session-consumer schema``: the JSON Schema of what is consumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from consumer.cli.options import loaded, settings_options
from consumer.errors import SettingsError
from consumer.routes.load import extend_path
from consumer.routes.topics import Topics, load_schemas
from consumer.settings.sections import Settings
from schemas.json_schema import json_schema


@click.command(short_help="Print the JSON Schema of the events.")
@click.option("--topic", help="Print the schema of this topic alone.")
@settings_options
def schema(topic: str | None, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Print the JSON Schema of what is consumed, as one JSON object with an entry for each topic.

    With kafka.topic_pattern the entries are those of [[schemas]]. Nothing is connected to.
    """
    settings = loaded(config, overrides).settings
    topics = topics_of(settings)
    if topic is not None:
        found = schema_of(topics, topic)
    else:
        names = settings.kafka.topics or [*(each.topic for each in settings.schemas), "*"]
        found = {name: schema_of(topics, name) for name in names}
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))


def topics_of(settings: Settings) -> Topics:
    """Import the types of all topics, without their routes."""
    extend_path(settings.path, sys.path, allow_writable=settings.allow_writable)
    return Topics(load_schemas(settings), [])


def schema_of(topics: Topics, topic: str) -> dict[str, Any]:
    """Return the JSON Schema of a topic. Raises SettingsError for a type that has none."""
    try:
        return json_schema(*topics.schema(topic))
    except TypeError as error:
        raise SettingsError(f"schemas ({topic}).type: JSON Schema cannot describe it: {error}") from error
