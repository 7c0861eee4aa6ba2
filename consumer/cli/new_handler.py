"""``session-consumer new-handler``: writes a handler and its test, and prints its route."""

from __future__ import annotations

import json
import keyword
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click

from consumer.cli.options import loaded, settings_options
from consumer.cli.schema import topics_of
from consumer.errors import ConsumerError
from consumer.routes.topics import Topics
from consumer.settings.sections import SchemaSettings, Settings, matches_topic
from schemas.example import NoExampleError, example_document

HANDLER = '''"""The handler {name}, for events of topic {topic}."""
{imports}

async def {name}({parameter}: {annotation}) -> None:
    """Handle {what}: to return means handled, to raise means not handled."""
'''
TEST = '''"""Tests of the handler {name}, without Kafka."""

from consumer import testing

HANDLER = "{name}:{name}"
EVENT{kind} = {event}
{schemas}

def test_an_event_is_handled() -> None:
    """One event of the topic is handled."""
    app = testing.run(HANDLER, EVENT{argument})
    assert app.outcomes == [("{name}", "handled")]
'''
ROUTE = """
[[routes]]
name = "{name}"
handler = "{name}:{name}"
topics = ["{topic}"]
"""


class EventClass(NamedTuple):
    """The type of a topic's events as a program names it."""

    name: str
    import_line: str
    """Empty if it needs none."""


BUILTIN = {"bytes": EventClass("bytes", ""), "dict": EventClass("dict[str, Any]", "from typing import Any")}
"""Types that need no module of the user."""


@click.command("new-handler", short_help="Write a handler and its test to start from.")
@click.argument("name")
@click.option("--topic", help="Topic whose events it handles; the first of kafka.topics without it.")
@click.option("--batch", is_flag=True, help="It takes lists of events.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Folder to write to; without it the first of `path`, or the working directory.",
)
@settings_options
def new_handler(
    name: str,
    topic: str | None,
    *,
    batch: bool,
    directory: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Write NAME.py and test_NAME.py, and print the route to add to the settings. Overwrites nothing.

    The handler is typed for the events of its topic, and its test passes.
    """
    settings = loaded(config, overrides).settings
    topic, topics = _topic(settings, topic), topics_of(settings)
    folder = directory or (Path(settings.path[0]) if settings.path else Path())
    files = [folder / f"{name}.py", folder / f"test_{name}.py"]
    _require_new(name, files)
    default = SchemaSettings(topic)
    entry = next((each for each in settings.schemas if fnmatchcase(topic, each.topic)), default)
    texts = _handler(name, topic, entry, batch=batch), _test(name, topic, entry, topics)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in zip(files, texts, strict=True):
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    click.echo(f"Written: {files[0]} and {files[1]}. Test it: python -m pytest {files[1]}", err=True)
    if str(folder.resolve()) not in settings.path:
        click.echo(f'Add the folder to the first line of the settings: path = ["{folder.resolve()}"]', err=True)
    click.echo(f"Add this route to {config or 'the settings'}:", err=True)
    click.echo(ROUTE.format(name=name, topic=topic), nl=False)


def _topic(settings: Settings, topic: str | None) -> str:
    """Return the topic, which must be consumed."""
    kafka = settings.kafka
    if topic is None:
        if not kafka.topics:
            raise click.UsageError("kafka.topic_pattern is set; name a topic with --topic")
        return kafka.topics[0]
    if kafka.topics and topic not in kafka.topics:
        raise click.UsageError(f"--topic {topic} is none of kafka.topics: {', '.join(kafka.topics)}")
    if kafka.topic_pattern and not matches_topic(settings).fullmatch(topic):
        raise click.UsageError(f"--topic {topic} does not match kafka.topic_pattern")
    return topic


def _require_new(name: str, files: list[Path]) -> None:
    """Raise for a name that Python cannot import, that another module has, or that is taken."""
    if not name.isidentifier() or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise click.UsageError(
            f"{name!r} is no name of a Python module; use letters, digits and _, such as bill_orders"
        )
    for file in files:
        if file.exists():
            raise click.UsageError(f"{file} exists already; choose another name, or another --directory")
    for module in (name, f"test_{name}"):
        if find_spec(module) is not None:
            raise click.UsageError(
                f"there is a module {module!r} already, which {module}.py would hide; choose another"
            )


def _handler(name: str, topic: str, entry: SchemaSettings, *, batch: bool) -> str:
    """Return the text of the handler."""
    event_class = _event_class(entry.type)
    return HANDLER.format(
        name=name,
        topic=topic,
        imports=f"\n{event_class.import_line}\n" if event_class.import_line else "",
        parameter="events" if batch else "event",
        annotation=f"list[{event_class.name}]" if batch else event_class.name,
        what="a batch" if batch else "one event",
    )


def _test(name: str, topic: str, entry: SchemaSettings, topics: Topics) -> str:
    """Return the text of the test; it names the type unless that is the default of ``consumer.testing``."""
    event = _event(topic, topics)
    is_default = entry == SchemaSettings("session-events")
    return TEST.format(
        name=name,
        kind=": dict[str, object]" if event == {} else "",
        event=_literal(event),
        schemas="" if is_default else f"SCHEMAS = {_literal({topic: _schema(entry)})}\n",
        argument="" if is_default else ", schemas=SCHEMAS",
    )


def _event_class(reference: str) -> EventClass:
    """Return how a program names what a schema's ``type`` refers to."""
    if reference in BUILTIN:
        return BUILTIN[reference]
    module, _, attribute = reference.partition(":")
    return EventClass(attribute, f"from {module} import {attribute.partition('.')[0]}")


def _schema(entry: SchemaSettings) -> Any:
    """Return what ``consumer.testing`` needs to know of an entry of ``[[schemas]]``."""
    usual = SchemaSettings(entry.topic)
    others = {key: getattr(entry, key) for key in ("format", "framing") if getattr(entry, key) != getattr(usual, key)}
    return {"type": entry.type, **others} if others else entry.type


def _event(topic: str, topics: Topics) -> Any:
    """Return an event of a topic as a document."""
    schema = topics.schema(topic)
    try:
        return example_document(schema.kind, schema.format)
    except NoExampleError as error:
        raise ConsumerError(f"no example of the events of topic {topic!r} can be made: {error}") from error


def _literal(value: Any, indent: str = "") -> str:
    """Return a value as the text of a program, as formatters leave it: quotes, and a line for each entry."""
    inner = f"{indent}    "
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict() if value:
            entries, ends = [f"{_literal(key)}: {_literal(each, inner)}" for key, each in value.items()], "{}"
        case list() if value:
            entries, ends = [_literal(each, inner) for each in value], "[]"
        case _:
            return repr(value).replace("'", '"')
    lines = "".join(f"{inner}{each},\n" for each in entries)
    return f"{ends[0]}\n{lines}{indent}{ends[1]}"
