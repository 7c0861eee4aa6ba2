"""The tables of options in docs/handlers.md, beside the handlers that are shipped; and a bad value of each option."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import consumer.handlers
from consumer.errors import SettingsError
from consumer.routes.options import construct
from tests.docs import ROOT

MANUAL = (ROOT / "docs/handlers.md").read_text(encoding="utf-8")
NOTHING: tuple[Any, ...] = (None, "", (), {})
"""Defaults whose cell says in words what happens."""


def shipped() -> list[type]:
    """Return every class of ``consumer.handlers`` whose instances are handlers and have options."""
    modules = [
        importlib.import_module(f"consumer.handlers.{each.name}")
        for each in pkgutil.iter_modules(consumer.handlers.__path__)
    ]
    return [
        each
        for module in modules
        for each in vars(module).values()
        if inspect.isclass(each)
        and each.__module__ == module.__name__
        and inspect.isfunction(vars(each).get("__call__"))
        if options_of(each)
    ]


def options_of(handler: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(handler).parameters)


def documented(handler: type) -> dict[str, str]:
    """Return the default of each option in the handler's table, by name."""
    table = re.search(rf"^\| option of `{handler.__name__}` \|.*\n\|[-|]+\n((?:\|.*\n)+)", MANUAL, re.MULTILINE)
    assert table is not None, f"docs/handlers.md has no table of options of {handler.__name__}"
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:4]] for row in table[1].splitlines()]
    return {name.strip("`"): default for name, default, _meaning in rows}


def written(default: Any) -> str:
    """Return a default as the settings file has it."""
    if default is inspect.Parameter.empty:
        return ""
    if isinstance(default, int | float) and not isinstance(default, bool):
        return f"{int(default) if default == int(default) else default}"
    return f"`{msgspec.json.encode(default).decode()}`"


each_handler = pytest.mark.parametrize("handler", shipped(), ids=lambda each: each.__name__)
each_option = pytest.mark.parametrize(
    ("handler", "name"),
    [pytest.param(each, name, id=f"{each.__name__}-{name}") for each in shipped() for name in options_of(each)],
)


def test_there_are_handlers_to_document() -> None:
    assert {"JsonLines", "Upsert", "Webhook"} <= {each.__name__ for each in shipped()}


@each_handler
def test_every_option_is_documented(handler: type) -> None:
    """The table of a handler has its options in order, each with its default."""
    options, found = options_of(handler), documented(handler)
    assert list(found) == list(options)
    for name, parameter in options.items():
        if parameter.default in NOTHING:
            assert found[name], f"{name}: say what happens without it"
        else:
            assert found[name].partition(":")[0] == written(parameter.default), name


@each_handler
def test_every_handler_is_in_the_list(handler: type) -> None:
    assert f"| `{handler.__module__}:{handler.__name__}` |" in MANUAL


@each_option
def test_a_value_of_another_type_names_its_option(handler: type, name: str) -> None:
    """A value of a wrong type is refused with the option's name, and without the value."""
    needed = {each: "x" for each, parameter in options_of(handler).items() if parameter.default is parameter.empty}
    with pytest.raises(SettingsError) as raised:
        construct(handler, needed | {name: [{"x": 70_911}]}, {}, "routes.all.options", on_command_line=False)
    assert f"options.{name}" in str(raised.value)
    assert "70911" not in str(raised.value).replace("_", "")


@each_handler
def test_an_example_runs_each_handler(handler: type) -> None:
    """A settings file in examples/ names the handler; tests/unit/testing runs each file."""
    examples = Path(ROOT / "examples").glob("*.toml")
    assert any(f"{handler.__module__}:{handler.__name__}" in each.read_text() for each in examples)
