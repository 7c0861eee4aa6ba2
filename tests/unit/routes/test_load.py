"""Importing handlers, and the folders they are imported from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from consumer.errors import SettingsError
from consumer.routes.load import extend_path, load_routes
from consumer.routes.route import Route
from consumer.settings.sections import RetrySettings, Settings
from tests.unit.routes.modules import WHERE, Write, load, load_reference, refusal


def test_a_function_is_imported(module: Write) -> None:
    """``module:attribute`` names any importable callable, also one inside an object."""
    module(
        "class Outer:\n    @staticmethod\n    async def inner(event, record): return event\ndef f(event): return 7\n"
    )
    assert load("f").call("event") == 7
    handler = load("Outer.inner")
    assert (handler.is_async, handler.wants_record) == (True, True)


@pytest.mark.parametrize("reference", ["", "mine", "mine:", ":f", ":"])
def test_a_reference_has_two_parts(reference: str) -> None:
    """A reference without a module or an attribute is refused and quoted."""
    with pytest.raises(SettingsError) as refused:
        load_reference(reference)
    assert str(refused.value) == f"{WHERE}.handler: {reference!r} is not module:attribute"


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "json.no_such"])
def test_a_missing_module(name: str) -> None:
    """A missing module is named, with the two ways to make it importable."""
    with pytest.raises(SettingsError) as refused:
        load_reference(f"{name}:f")
    assert f"{WHERE}.handler: {name}:f: there is no module" in str(refused.value)
    assert "`path` or PYTHONPATH" in str(refused.value)


def test_a_missing_import_of_a_module(module: Write) -> None:
    """A module that imports a missing one is refused with the name of the missing one."""
    module("import no_such_module\n")
    assert "there is no module 'no_such_module'" in refusal("f")


def test_a_missing_attribute(module: Write) -> None:
    """A missing attribute is an error with the nearest existing name."""
    module("def store(event): pass\n")
    assert "mine has no 'stroe'; did you mean 'store'?" in refusal("stroe")


def test_a_missing_attribute_of_a_value(module: Write) -> None:
    """A missing attribute of an object inside a module is an error too."""
    module("LIMIT = 3\nclass Sink:\n    def store(self, event): pass\nsink = Sink()\n")
    assert "no 'store'" in refusal("LIMIT.store")
    assert "no 'stroe'" in refusal("sink.stroe")


@pytest.mark.parametrize(
    "source",
    ["\nraise RuntimeError('no')\n", "\ndef f(event) pass\n", "\nimport sys; sys.exit(0)\n"],
    ids=["raises", "syntax", "exits"],
)
def test_a_module_that_fails_at_import(module: Write, tmp_path: Path, source: str) -> None:
    """A module that raises, does not parse or exits at import is named with its file and line."""
    module(source)
    message = refusal("f")
    assert f"{WHERE}.handler: importing mine raised" in message
    assert f"{tmp_path / 'mine.py'}:2" in message
    assert "importlib" not in message


@pytest.mark.parametrize("name", [".mine", "mi ne", "mine..f"])
def test_a_name_that_no_module_has(name: str) -> None:
    """A name that cannot be a module's is an error like a missing module."""
    with pytest.raises(SettingsError, match="handler"):
        load_reference(f"{name}:f")


def test_path_is_appended_once(tmp_path: Path) -> None:
    """Folders are appended to Python's path in order; a second time changes nothing."""
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        Path(folder).mkdir()
    path = ["/first"]
    extend_path([*folders, f"{folders[0]}/"], path)
    extend_path(folders, path)
    assert path == ["/first", *folders]


@pytest.mark.parametrize("name", ["consumer", "schemas"])
@pytest.mark.parametrize("as_file", [True, False])
def test_path_must_not_hold_our_names(tmp_path: Path, name: str, as_file: bool) -> None:
    """A folder that holds a module with one of this project's names is refused, and not appended."""
    if as_file:
        (tmp_path / f"{name}.py").touch()
    else:
        (tmp_path / name).mkdir()
    path = ["/first"]
    with pytest.raises(SettingsError) as refused:
        extend_path([str(tmp_path)], path)
    assert f"path: {tmp_path} holds a module {name!r}" in str(refused.value)
    assert path == ["/first"]


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """A folder of handlers that every user may write is refused, unless the settings allow it."""
    tmp_path.chmod(0o777)
    path: list[str] = []
    with pytest.raises(SettingsError, match=f"path: {tmp_path} can be written by every user"):
        extend_path([str(tmp_path)], path)
    with pytest.raises(SettingsError, match="every user"):
        load_routes(Settings(path=[str(tmp_path)]), {})
    assert path == []
    extend_path([str(tmp_path)], path, allow_writable=True)
    assert path == [str(tmp_path)]


@pytest.mark.parametrize("make", [Path.touch, lambda _: None], ids=["a file", "missing"])
def test_path_is_made_of_folders(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """An entry that is not a folder is refused with its name."""
    entry = tmp_path / "handlers"
    make(entry)
    with pytest.raises(SettingsError) as refused:
        extend_path([str(entry)], [])
    assert str(refused.value) == f"path: {entry} is not a folder"


def a_route_with(**fields: object) -> list[Route]:
    """Load the routes of settings whose only route has these fields."""
    route = {"name": "r", "handler": "mine:f", **fields}
    return load_routes(msgspec.convert({"retry": {"attempts": 4}, "routes": [route]}, Settings), {})


def test_exceptions_to_pause_on(module: Write) -> None:
    """Each reference in ``pause_on`` is imported; nested attributes are found as those of a handler are."""
    module("class Lost(Exception): pass\nclass Client:\n    class Gone(OSError): pass\ndef f(event): pass\n")
    (route,) = a_route_with(pause_on=["mine:Lost", "mine:Client.Gone", "asyncio:TimeoutError"])
    assert [each.__name__ for each in route.pause_on] == ["Lost", "Gone", "TimeoutError"]
    assert a_route_with()[0].pause_on == ()


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("aiohttp.ClientError", "'aiohttp.ClientError' is not module:attribute"),
        ("no_such_module:Lost", "no_such_module:Lost: there is no module 'no_such_module'"),
        ("mine:Los", "mine:Los: mine has no 'Los'; did you mean 'Lost'?"),
        ("mine:f", "mine:f is not a class derived from Exception"),
        ("mine:lost", "mine:lost is not a class derived from Exception"),
        ("builtins:dict", "builtins:dict is not a class derived from Exception"),
        ("asyncio:CancelledError", "asyncio:CancelledError is not a class derived from Exception"),
    ],
)
def test_wrong_exceptions_to_pause_on(module: Write, reference: str, says: str) -> None:
    """A reference that cannot be imported, or is no exception class, is an error that names route and setting."""
    module("class Lost(Exception): pass\nlost = Lost()\ndef f(event): pass\n")
    with pytest.raises(SettingsError) as refused:
        a_route_with(pause_on=["builtins:OSError", reference])
    assert str(refused.value).startswith(f"{WHERE}.pause_on: {says}")


def test_the_retry_settings_of_a_route(module: Write) -> None:
    """A route's ``retry`` overrides ``[retry]`` field by field."""
    module("def f(event): pass\n")
    (route,) = a_route_with(retry={"maximum_seconds": 5.0, "jitter": 0.0})
    assert route.retry == RetrySettings(attempts=4, maximum_seconds=5.0, jitter=0.0)
    assert a_route_with()[0].retry == RetrySettings(attempts=4)
