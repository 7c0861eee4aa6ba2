"""Options of a route become arguments of its handler, in the types of its annotations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.routes.handler import Handler
from consumer.routes.load import load_handler, load_routes
from consumer.settings.sections import RouteSettings, Settings
from tests.unit.routes.modules import SECRET, WHERE, Write, load, load_reference, refusal

SINK = """
from __future__ import annotations
from pathlib import Path
from typing import Literal
from consumer import Secret, WorkerPath

class Sink:
    def __init__(self, path: Path, limit: int = 7, *, ratio: float = 0.5, names: list[str] | None = None,
                 mode: Literal["a", "w"] = "a", free=None, folder: Path | None = None) -> None:
        self.given = (path, limit, ratio, names, mode, free, folder)

    def __call__(self, event): pass

class Inherits(Sink):
    pass

class Sends:
    def __init__(self, url: str, token: Secret, spare: Secret | None = None, headers: dict[str, str] = {}) -> None:
        self.given = (url, token, spare, headers)

    def __call__(self, event): pass

class Files:
    def __init__(self, path: WorkerPath, *, spare: WorkerPath | None = None, usual: WorkerPath = Path("u/usual.log"),
                 shared: Path = Path("shared.db")) -> None:
        self.given = (path, spare, usual, shared)

    def __call__(self, event): pass

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
    """A class is called with its route's options, converted to its annotated types."""
    module(SINK)
    options = {"path": "a/b", "limit": 3, "ratio": 1, "names": ["x"], "mode": "w", "free": {"any": 1}, "folder": "f"}
    assert given(load("Sink", options)) == (Path("a/b"), 3, 1.0, ["x"], "w", {"any": 1}, Path("f"))


def test_defaults_of_options(module: Write) -> None:
    """A missing option has the default of the class."""
    module(SINK)
    assert given(load("Sink", {"path": "a"})) == (Path("a"), 7, 0.5, None, "a", None, None)


def test_files_of_a_worker_have_its_number(module: Write) -> None:
    """An option annotated WorkerPath, or its default, gets the worker's number; without workers it stays."""
    module(SINK)
    route = RouteSettings("r", "mine:Files", options={"path": "a/voice.jsonl", "spare": "b/spare"})
    usual = given(load_handler(route, WHERE, {}, 1))
    assert list(map(str, usual)) == ["a/voice.jsonl", "b/spare", "u/usual.log", "shared.db"]
    second = given(load_handler(route, WHERE, {}, 1, worker=2))
    assert list(map(str, second)) == ["a/voice-2.jsonl", "b/spare-2", "u/usual-2.log", "shared.db"]


@pytest.mark.parametrize("path", ["/dev/null", ".", "..", "/", ""])
def test_only_a_file_gets_the_number_of_a_worker(path: str) -> None:
    """A device is refused: its name with a number would be a file that nobody looks for, such as one in /dev."""
    route = RouteSettings(name="lines", handler="consumer.handlers.jsonl:JsonLines", options={"path": path})
    with pytest.raises(SettingsError, match="path: with --workers it must be the name of a regular file"):
        load_handler(route, WHERE, {}, 1, worker=1)


def test_inherited_options_are_converted(module: Write) -> None:
    """An inherited constructor's annotations convert the options too."""
    module(SINK)
    assert given(load("Inherits", {"path": "a"}))[0] == Path("a")
    assert "options.limit: Expected int, got str" in refusal("Inherits", {"path": "a", "limit": "3"})


def test_a_class_without_options(module: Write) -> None:
    """A class without options is called without arguments."""
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
    """``{ env = "X" }`` is the value of the variable; an unset variable is named."""
    module(SINK)
    assert given(load("Sink", {"path": {"env": "TARGET"}}, TARGET="a"))[0] == Path("a")
    assert refusal("Sink", {"path": {"env": "TARGET"}}) == (
        f"{WHERE}.options.path: the environment variable TARGET is not set"
    )


def test_an_option_from_a_file(module: Write, tmp_path: Path) -> None:
    """``{ file = "path" }`` is the file's content without its line end; a missing file is named."""
    module(SINK)
    file = tmp_path / "secret"
    file.write_bytes(b" a \r\n")
    assert given(load("Sink", {"path": "p", "free": {"file": str(file)}}))[5] == " a "
    file.unlink()
    assert f"{WHERE}.options.free: cannot read {str(file)!r}: " in refusal(
        "Sink", {"path": "p", "free": {"file": str(file)}}
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_an_option_from_a_file_in_another_encoding(module: Write, tmp_path: Path, encoding: str) -> None:
    """A file of an option may have a byte order mark and Windows' end of line."""
    module(SINK)
    (tmp_path / "secret").write_bytes(f"{SECRET}\r\n".encode(encoding))
    assert given(load("Sink", {"path": "p", "free": {"file": str(tmp_path / "secret")}}))[5] == SECRET


def test_what_a_table_of_an_option_points_to(module: Write, tmp_path: Path) -> None:
    """The values of a table may come from variables and files too; what is missing is named with its place."""
    module(SINK)
    (tmp_path / "key").write_text("k\n")
    headers = {"Authorization": {"env": "TOKEN"}, "X-Key": {"file": str(tmp_path / "key")}, "X-Plain": "p"}
    options = {"url": "u", "token": "t", "headers": headers}
    assert given(load("Sends", options, TOKEN=SECRET))[3] == {"Authorization": SECRET, "X-Key": "k", "X-Plain": "p"}
    assert refusal("Sends", options) == (
        f"{WHERE}.options.headers.Authorization: the environment variable TOKEN is not set"
    )


@pytest.mark.parametrize("name", ["token", "spare"])
def test_a_marked_secret_is_refused_on_the_command_line(module: Write, name: str) -> None:
    """An option annotated Secret may stand on a command line only as a name of a variable or of a file."""
    module(SINK)
    usual = {"url": "u", "token": {"env": "TOKEN"}}
    for route, works in ((usual | {name: SECRET}, False), (usual | {name: {"env": "TOKEN"}}, True)):
        settings = Settings(routes=[RouteSettings("r", "mine:Sends", options=route)])
        assert len(load_routes(settings, {"TOKEN": SECRET})) == 1
        if works:
            assert len(load_routes(settings, {"TOKEN": SECRET}, on_command_line=True)) == 1
        else:
            with pytest.raises(SettingsError, match=f"options.{name}: a secret on the command line") as refused:
                load_routes(settings, {"TOKEN": SECRET}, on_command_line=True)
            assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["limit", "ratio"])
def test_a_number_from_outside(module: Write, tmp_path: Path, name: str) -> None:
    """A number may come from a variable or a file, though they hold text."""
    module(SINK)
    (tmp_path / "number").write_text("3\n")
    position = {"limit": 1, "ratio": 2}[name]
    assert given(load("Sink", {"path": "p", name: {"env": "N"}}, N="3"))[position] == 3
    assert given(load("Sink", {"path": "p", name: {"file": str(tmp_path / "number")}}))[position] == 3


@pytest.mark.parametrize("table", [{"env": 3}, {"env": ["X"]}, {"file": 3}, {"file": ["a"]}, {"file": "a\0b"}], ids=str)
def test_a_table_that_points_nowhere(module: Write, table: dict[str, Any]) -> None:
    """An impossible name of a variable or a file is refused with the option's name."""
    module(SINK)
    assert f"{WHERE}.options.path: " in refusal("Sink", {"path": table})


def test_other_tables_are_values(module: Write) -> None:
    """A table with another key, or with more than one, is an ordinary value."""
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
def test_values_of_options_are_never_shown(module: Write, attribute: str, options: dict[str, Any]) -> None:
    """No error about options shows a value, because any may be a secret."""
    module(SINK)
    assert SECRET not in refusal(attribute, options, TOKEN=SECRET)


def test_a_class_that_raises(module: Write) -> None:
    """A class that raises is an error with the exception's class and place; a SettingsError passes unchanged."""
    module(SINK)
    said = refusal("Raises", {"token": "x"})
    assert re.fullmatch(
        rf"{re.escape(WHERE)}.options: Raises refused its options with ValueError \(.*mine.py:\d+\)", said
    )
    assert refusal("Refuses", {"token": "x"}) == f"{WHERE}.options.token: too short; take a longer one"


def test_instances_must_be_callable(module: Write) -> None:
    """A class whose instances cannot be called is refused with its name."""
    module(SINK)
    assert refusal("Uncallable") == f"{WHERE}.handler: mine:Uncallable: it cannot be called with an event"


def test_only_classes_take_options(module: Write) -> None:
    """A function with options is refused, because nothing would read them."""
    module(SINK)
    assert refusal("function", {"limit": 1}) == (
        f"{WHERE}.options: mine:function is not a class; only classes take options"
    )
    assert load("function").wants_record is False


@pytest.mark.parametrize("reference", ["builtins:dict", "builtins:int"])
def test_a_class_without_a_signature(reference: str) -> None:
    """A class without a known signature is refused with its name."""
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
    """An annotation that is missing at run time is an error of the route; a path may also be text."""
    module(UNREADABLE)
    assert f"{WHERE}.options" in refusal("OnlyChecked", {"price": "1"})
    assert load("Union", {"path": "a"}).call is not None
