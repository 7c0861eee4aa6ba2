"""Handlers: any callable, imported, given its options and looked at once; what is wrong is said before any event."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.routes.handler import Handler, bind_handler
from consumer.routes.load import extend_path, load_handler
from consumer.settings.sections import RouteSettings

SECRET = "hunter2-s3cret"
WHERE = "routes[0] (r)"

Write = Callable[[str], None]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a person's own module, importable as ``mine`` until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(source: str) -> None:
        (tmp_path / "mine.py").write_text(source)
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in (None, str(tmp_path / "mine.py")):
            del sys.modules[name]


def load_reference(reference: str, options: dict[str, Any] | None = None, **environment: str) -> Handler:
    return load_handler(RouteSettings("r", reference, {}, options or {}), WHERE, environment)


def load(attribute: str, options: dict[str, Any] | None = None, **environment: str) -> Handler:
    return load_reference(f"mine:{attribute}", options, **environment)


def refusal(attribute: str, options: dict[str, Any] | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(attribute, options, **environment)
    return str(refused.value)


# -- how it is called --------------------------------------------------------------------------------------------------


def one(event: Any) -> Any:
    return event


def two(event: Any, record: Any) -> Any:
    return event, record


def any_number(*arguments: Any) -> Any:
    return arguments


def with_keyword(event: Any, *, limit: int = 1) -> Any:
    return event, limit


async def async_one(event: Any) -> Any:
    return event


async def async_two(event: Any, record: Any) -> Any:
    return event, record


class Sync:
    def __call__(self, event: Any) -> Any:
        return event

    def method(self, event: Any, record: Any) -> Any:
        return event, record


class Async:
    async def __call__(self, event: Any, record: Any) -> Any:
        return event, record

    async def method(self, event: Any) -> Any:
        return event


CALLABLES = [
    (one, False, False),
    (two, False, True),
    (any_number, False, True),
    (with_keyword, False, False),
    (async_one, True, False),
    (async_two, True, True),
    (lambda event: event, False, False),
    (lambda event, record: (event, record), False, True),
    (functools.partial(two, "bound"), False, False),
    (functools.partial(two, record="bound"), False, False),
    (functools.partial(async_one), True, False),
    (functools.partial(async_two), True, True),
    (Sync(), False, False),
    (Sync().method, False, True),
    (Async(), True, True),
    (Async().method, True, False),
    (str.upper, False, False),
    ([].append, False, False),
    (print, False, True),
]


@pytest.mark.parametrize(("target", "is_async", "wants_record"), CALLABLES, ids=lambda value: repr(value)[:40])
def test_any_callable_is_a_handler(target: Any, is_async: bool, wants_record: bool) -> None:
    """How a callable is called follows from its signature alone: awaited or not, with or without the Record."""
    handler = bind_handler(target, WHERE)
    assert handler.call is target
    assert (handler.is_async, handler.wants_record) == (is_async, wants_record)
    assert (handler.flush, handler.context) == (None, None)


def none_at_all() -> None:
    pass


def three(event: Any, record: Any, more: Any) -> None:
    pass


def needs_keyword(event: Any, *, limit: int) -> None:
    pass


@pytest.mark.parametrize("target", [none_at_all, three, needs_keyword, functools.partial(one, "bound")])
def test_a_signature_that_no_event_fits(target: Any) -> None:
    """A callable that fits neither the event nor the event and its Record is refused, and told what fits."""
    with pytest.raises(SettingsError, match="a handler takes the event, or the event and its Record"):
        bind_handler(target, WHERE)


@pytest.mark.parametrize("target", [3, "text", None, object()])
def test_what_cannot_be_called_is_no_handler(target: Any) -> None:
    """A thing that cannot be called is refused with the route's name."""
    with pytest.raises(SettingsError) as refused:
        bind_handler(target, WHERE)
    assert str(refused.value) == f"{WHERE}: it cannot be called with an event"


def yields(event: Any) -> Iterator[Any]:
    yield event


async def yields_async(event: Any) -> Any:
    yield event


@pytest.mark.parametrize("target", [yields, yields_async])
def test_a_generator_is_no_handler(target: Any) -> None:
    """A call of a generator runs none of it, so that every event would be lost in silence: it is refused."""
    with pytest.raises(SettingsError, match="yield"):
        bind_handler(target, WHERE)


# -- import ------------------------------------------------------------------------------------------------------------


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
    """A reference without a module or an attribute is refused as it was written."""
    with pytest.raises(SettingsError) as refused:
        load_reference(reference)
    assert str(refused.value) == f"{WHERE}.handler: {reference!r} is not module:attribute"


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "json.no_such"])
def test_a_missing_module(name: str) -> None:
    """A module that is not there is named, with the two ways to make it importable."""
    with pytest.raises(SettingsError) as refused:
        load_reference(f"{name}:f")
    assert f"{WHERE}.handler: {name}:f: there is no module" in str(refused.value)
    assert "`path` or PYTHONPATH" in str(refused.value)


def test_a_missing_import_of_a_module(module: Write) -> None:
    """A module that is there and imports one that is not says which one is missing."""
    module("import no_such_module\n")
    assert "there is no module 'no_such_module'" in refusal("f")


def test_a_missing_attribute(module: Write) -> None:
    """An attribute that a module has not is an error with the nearest one that it has."""
    module("def store(event): pass\n")
    assert "mine has no 'stroe'; did you mean 'store'?" in refusal("stroe")


def test_a_missing_attribute_of_a_value(module: Write) -> None:
    """An attribute that a value inside a module has not is an error too."""
    module("LIMIT = 3\nclass Sink:\n    def store(self, event): pass\nsink = Sink()\n")
    assert "no 'store'" in refusal("LIMIT.store")
    assert "no 'stroe'" in refusal("sink.stroe")


@pytest.mark.parametrize(
    "source",
    ["\nraise RuntimeError('no')\n", "\ndef f(event) pass\n", "\nimport sys; sys.exit(0)\n"],
    ids=["raises", "syntax", "exits"],
)
def test_a_module_that_fails_at_import(module: Write, tmp_path: Path, source: str) -> None:
    """A module that raises, does not parse or exits when it is imported is named with its file and line."""
    module(source)
    message = refusal("f")
    assert f"{WHERE}.handler: importing mine raised" in message
    assert f"{tmp_path / 'mine.py'}:2" in message
    assert "importlib" not in message


@pytest.mark.parametrize("name", [".mine", "mi ne", "mine..f"])
def test_a_name_that_no_module_has(name: str) -> None:
    """A name that cannot be a module's is an error as a missing one is."""
    with pytest.raises(SettingsError, match="handler"):
        load_reference(f"{name}:f")


# -- options -----------------------------------------------------------------------------------------------------------

SINK = """
from __future__ import annotations
from pathlib import Path
from typing import Literal

class Sink:
    def __init__(self, path: Path, limit: int = 7, *, ratio: float = 0.5, names: list[str] | None = None,
                 mode: Literal["a", "w"] = "a", free=None, folder: Path | None = None) -> None:
        self.given = (path, limit, ratio, names, mode, free, folder)

    def __call__(self, event): pass

class Inherits(Sink):
    pass

class Bare:
    def __call__(self, event): pass

class Uncallable:
    pass

class Raises:
    def __init__(self, token: str) -> None:
        raise ValueError(f"bad token {token}")

class Refuses:
    def __init__(self, token: str) -> None:
        from consumer.errors import SettingsError
        raise SettingsError("options.token: too short; take a longer one")

def function(event): pass
"""


def given(handler: Handler) -> tuple[Any, ...]:
    found: tuple[Any, ...] = handler.call.given  # type: ignore[attr-defined]
    return found


def test_options_become_arguments(module: Write) -> None:
    """A class is called with its route's options, in the types that its annotations ask for."""
    module(SINK)
    options = {"path": "a/b", "limit": 3, "ratio": 1, "names": ["x"], "mode": "w", "free": {"any": 1}, "folder": "f"}
    assert given(load("Sink", options)) == (Path("a/b"), 3, 1.0, ["x"], "w", {"any": 1}, Path("f"))


def test_defaults_of_options(module: Write) -> None:
    """An option that is left out has the default of the class."""
    module(SINK)
    assert given(load("Sink", {"path": "a"})) == (Path("a"), 7, 0.5, None, "a", None, None)


def test_inherited_options_are_converted(module: Write) -> None:
    """A class that inherits its constructor has its options read by the annotations of that one."""
    module(SINK)
    assert given(load("Inherits", {"path": "a"}))[0] == Path("a")
    assert "options.limit: Expected int, got str" in refusal("Inherits", {"path": "a", "limit": "3"})


def test_a_class_without_options(module: Write) -> None:
    """A class that takes no options is called without any."""
    module(SINK)
    assert type(load("Bare").call).__name__ == "Bare"
    assert "Bare has no option 'path'" in refusal("Bare", {"path": "a"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": 3}, "options.path: Expected Path, got int"),
        ({"path": "a", "limit": "3"}, "options.limit: Expected int, got str"),
        ({"path": "a", "limit": True}, "options.limit: Expected int, got bool"),
        ({"path": "a", "names": "x"}, "options.names: Expected array | null, got str"),
        ({"path": "a", "names": [1]}, "options.names: Expected str, got int"),
        ({"path": "a", "limt": 3}, "options: Sink has no option 'limt'; did you mean 'limit'?"),
        ({"limit": 3}, "options: Sink needs the option 'path'"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(module: Write, options: dict[str, Any], message: str) -> None:
    """An option that is unknown, missing or of a wrong type is named with its route."""
    module(SINK)
    assert refusal("Sink", options) == f"{WHERE}.{message}"


def test_an_option_from_the_environment(module: Write) -> None:
    """``{ env = "X" }`` stands for the value of a variable; one that is not set is named."""
    module(SINK)
    assert given(load("Sink", {"path": {"env": "TARGET"}}, TARGET="a"))[0] == Path("a")
    assert refusal("Sink", {"path": {"env": "TARGET"}}) == (
        f"{WHERE}.options.path: the environment variable TARGET is not set"
    )


def test_an_option_from_a_file(module: Write, tmp_path: Path) -> None:
    """``{ file = "path" }`` stands for what a file holds, without the end of its line; a missing file is named."""
    module(SINK)
    file = tmp_path / "secret"
    file.write_bytes(b" a \r\n")
    assert given(load("Sink", {"path": "p", "free": {"file": str(file)}}))[5] == " a "
    file.unlink()
    assert f"{WHERE}.options.free: cannot read {str(file)!r}: " in refusal(
        "Sink", {"path": "p", "free": {"file": str(file)}}
    )


@pytest.mark.parametrize("name", ["limit", "ratio"])
def test_a_number_from_outside(module: Write, tmp_path: Path, name: str) -> None:
    """Any option may come from a variable or a file: a number, too, though what they hold is text."""
    module(SINK)
    (tmp_path / "number").write_text("3\n")
    position = {"limit": 1, "ratio": 2}[name]
    assert given(load("Sink", {"path": "p", name: {"env": "N"}}, N="3"))[position] == 3
    assert given(load("Sink", {"path": "p", name: {"file": str(tmp_path / "number")}}))[position] == 3


@pytest.mark.parametrize("table", [{"env": 3}, {"env": ["X"]}, {"file": 3}, {"file": ["a"]}, {"file": "a\0b"}], ids=str)
def test_a_table_that_points_nowhere(module: Write, table: dict[str, Any]) -> None:
    """A variable or a file whose name cannot be one is refused with the option's name."""
    module(SINK)
    assert f"{WHERE}.options.path: " in refusal("Sink", {"path": table})


def test_other_tables_are_values(module: Write) -> None:
    """A table with more than one key, or with another, is a value of its own."""
    module(SINK)
    for table in ({"env": "X", "file": "y"}, {"other": "X"}, {}):
        assert given(load("Sink", {"path": "p", "free": table}))[5] == table


@pytest.mark.parametrize(
    ("attribute", "options"),
    [
        ("Raises", {"token": SECRET}),
        ("Raises", {"token": {"env": "TOKEN"}}),
        ("Raises", {"token": "x", "tokn": SECRET}),
        ("Bare", {"token": SECRET}),
        ("function", {"token": SECRET}),
        ("Sink", {"path": "a", "limit": SECRET}),
        ("Sink", {"path": "a", "limit": {"env": "TOKEN"}}),
        ("Sink", {"path": "a", "names": {SECRET: 1}}),
        ("Sink", {"path": "a", "mode": SECRET}),
        ("Sink", {"path": "a", "mode": {"env": "TOKEN"}}),
    ],
    ids=str,
)
def test_values_of_options_are_never_said(module: Write, attribute: str, options: dict[str, Any]) -> None:
    """No error about options repeats one of their values: any may be a secret."""
    module(SINK)
    assert SECRET not in refusal(attribute, options, TOKEN=SECRET)


def test_a_class_that_raises(module: Write) -> None:
    """A class that raises is an error with the class and place of what it raised; a SettingsError is passed on."""
    module(SINK)
    said = refusal("Raises", {"token": "x"})
    assert re.fullmatch(
        rf"{re.escape(WHERE)}.options: Raises refused its options with ValueError \(.*mine.py:\d+\)", said
    )
    assert refusal("Refuses", {"token": "x"}) == f"{WHERE}.options.token: too short; take a longer one"


def test_instances_must_be_callable(module: Write) -> None:
    """A class whose instances cannot be called is refused by name."""
    module(SINK)
    assert refusal("Uncallable") == f"{WHERE}.handler: mine:Uncallable: it cannot be called with an event"


def test_only_classes_take_options(module: Write) -> None:
    """A function with options is refused: nothing would read them."""
    module(SINK)
    assert refusal("function", {"limit": 1}) == (
        f"{WHERE}.options: mine:function is not a class; only classes take options"
    )
    assert load("function").wants_record is False


@pytest.mark.parametrize("reference", ["builtins:dict", "builtins:int"])
def test_a_class_without_a_signature(reference: str) -> None:
    """A class of which Python knows no signature is refused by name."""
    with pytest.raises(SettingsError, match="routes"):
        load_reference(reference)


UNREADABLE = """
from __future__ import annotations
from pathlib import Path
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from decimal import Decimal

class OnlyChecked:
    def __init__(self, price: Decimal) -> None: pass
    def __call__(self, event): pass

class Union:
    def __init__(self, path: str | Path) -> None: pass
    def __call__(self, event): pass
"""


def test_annotations_that_cannot_be_read(module: Write) -> None:
    """An annotation that is not there at run time is an error of the route; a path may also be text."""
    module(UNREADABLE)
    assert f"{WHERE}.options" in refusal("OnlyChecked", {"price": "1"})
    assert load("Union", {"path": "a"}).call is not None


# -- flush and context -------------------------------------------------------------------------------------------------

KEEPER = """
class Keeper:
    flushed = 0
    async def __aenter__(self): return self
    async def __aexit__(self, *_): pass
    async def flush(self): self.flushed += 1
    def __call__(self, event): pass

class SyncFlush:
    def flush(self): pass
    def __call__(self, event): pass

class SyncContext:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __call__(self, event): pass

keeper = Keeper()
"""


async def test_flush_is_found(module: Write) -> None:
    """The flush that a handler defines is the one that is awaited before a commit."""
    module(KEEPER)
    handler = load("Keeper")
    assert handler.flush is not None
    await handler.flush()
    assert handler.call.flushed == 1  # type: ignore[attr-defined]


def test_flush_must_be_async(module: Write) -> None:
    """A flush that is not async is refused: it would stop every partition while the disk works."""
    module(KEEPER)
    assert refusal("SyncFlush") == f"{WHERE}.handler: mine:SyncFlush: flush must be `async def flush(self)`"


def test_an_async_context_manager_is_found(module: Write) -> None:
    """An object that is an async context manager is entered and left; one that is a sync one is not."""
    module(KEEPER)
    for attribute in ("Keeper", "keeper"):
        handler = load(attribute)
        assert handler.context is handler.call
    assert load("SyncContext").context is None


def test_a_method_is_flushed_with_its_object(module: Write) -> None:
    """A handler that is a method of an object with a flush has that flush: what the object keeps is not on disk yet."""
    module(KEEPER + "\nclass Table(Keeper):\n    def insert(self, event): pass\n\ntable = Table()\n")
    assert load("table.insert").flush is not None


# -- path --------------------------------------------------------------------------------------------------------------


def test_path_is_appended_once(tmp_path: Path) -> None:
    """Folders go to the end of Python's path, in order, and a second time changes nothing."""
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
    """A folder that holds a module of one of this software's names is refused, and not appended."""
    if as_file:
        (tmp_path / f"{name}.py").touch()
    else:
        (tmp_path / name).mkdir()
    path = ["/first"]
    with pytest.raises(SettingsError) as refused:
        extend_path([str(tmp_path)], path)
    assert f"path: {tmp_path} holds a module {name!r}" in str(refused.value)
    assert path == ["/first"]


@pytest.mark.parametrize("make", [Path.touch, lambda _: None], ids=["a file", "missing"])
def test_path_is_made_of_folders(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """An entry that is not a folder is refused by name."""
    entry = tmp_path / "handlers"
    make(entry)
    with pytest.raises(SettingsError) as refused:
        extend_path([str(entry)], [])
    assert str(refused.value) == f"path: {entry} is not a folder"
