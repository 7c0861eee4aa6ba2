"""Loading of routes: handlers are imported by reference and constructed with their options, matches are compiled."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from consumer.errors import SettingsError, hint, place_of, raised_at
from consumer.routes.annotation import check_annotation
from consumer.routes.calling import InThread, within
from consumer.routes.handler import MAX_RECORDS, MAX_SECONDS, Handler, bind_handler, first_annotation
from consumer.routes.match import compile_match
from consumer.routes.route import Route
from consumer.settings.sections import LOG_EVERYTHING, RouteSettings, Settings
from schemas.session import Session


def load_routes(settings: Settings, environment: Mapping[str, str]) -> list[Route]:
    """Import every handler and compile every match. Raises SettingsError for the first error."""
    extend_path(settings.path, sys.path)
    routes = []
    for index, each in enumerate(settings.routes or [LOG_EVERYTHING]):
        where = f"routes[{index}] ({each.name})"
        matches = compile_match(Session, each.match, where)
        handler = load_handler(each, where, environment, settings.delivery.threads)
        pause_on = load_exceptions(each, where)
        retry = each.retry.over(settings.retry)
        routes.append(Route(each.name, matches, handler, each.tombstones, pause_on, retry))
    return routes


def load_exceptions(route: RouteSettings, where: str) -> tuple[type[Exception], ...]:
    """Import the exceptions in a route's ``pause_on``. Raises SettingsError for one that is no exception class."""
    found = []
    for reference in route.pause_on:
        each = _import(reference, f"{where}.pause_on")
        if not (inspect.isclass(each) and issubclass(each, Exception)):
            raise SettingsError(f"{where}.pause_on: {reference} is not a class derived from Exception")
        found.append(each)
    return tuple(found)


def load_handler(route: RouteSettings, where: str, environment: Mapping[str, str], threads: int) -> Handler:
    """Import a route's ``module:attribute`` and make a Handler of it; ``where`` names the route in errors.

    ``threads`` is the size of the route's pool if its calls are threaded.

    Raises SettingsError for a wrong reference, a wrong option, a wrong signature or a wrong annotation.
    """
    target = _import(route.handler, f"{where}.handler")
    if inspect.isclass(target):
        target = _construct(target, route.options, environment, f"{where}.options")
    elif route.options:
        raise SettingsError(f"{where}.options: {route.handler} is not a class; only classes take options")
    handler = bind_handler(target, f"{where}.handler: {route.handler}")
    check_annotation(first_annotation(target), Session, f"{where}.handler: {route.handler}")
    _check_fit(route, handler, where)
    call, is_async, running_since = handler.call, handler.is_async, None
    if route.threaded:
        threaded = InThread(call, threads, route.timeout_seconds)
        call, is_async, running_since = threaded, True, threaded.running_since
    elif route.timeout_seconds is not None:
        call = within(call, route.timeout_seconds)
    return msgspec.structs.replace(
        handler,
        call=call,
        is_async=is_async,
        max_records=route.max_records or MAX_RECORDS,
        max_seconds=route.max_seconds or MAX_SECONDS,
        flush_seconds=route.flush_seconds or 0.0,
        timeout_seconds=route.timeout_seconds,
        running_since=running_since,
    )


def _check_fit(route: RouteSettings, handler: Handler, where: str) -> None:
    """Raise SettingsError for settings of a route that its handler cannot follow."""
    inline = not handler.is_async and not route.threaded
    for wrong, reason in (
        (route.threaded and handler.is_async, "threaded: an async handler runs in the event loop; leave it out"),
        (
            route.timeout_seconds is not None and inline,
            "timeout_seconds: a plain function that runs inline cannot be stopped; make it async, or set threaded",
        ),
        (
            not handler.takes_batches and (route.max_records is not None or route.max_seconds is not None),
            "max_records, max_seconds: the handler's first parameter is not annotated list[…], so it gets no batches",
        ),
        (
            route.flush_seconds is not None and handler.flush is None,
            "flush_seconds: the handler has no `async def flush(self)`",
        ),
        (
            route.tombstones and (handler.takes_batches or not handler.wants_record),
            "tombstones: the handler needs a second parameter, the Record, to tell which key was deleted",
        ),
    ):
        if wrong:
            raise SettingsError(f"{where}.{reason}")


def _import(reference: str, where: str) -> Any:
    module_name, colon, attribute = reference.partition(":")
    if not (module_name and colon and attribute):
        raise SettingsError(f"{where}: {reference!r} is not module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            remedy = "put its folder in `path` or PYTHONPATH, or install it beside session-consumer"
        else:
            remedy = f"{module_name} imports it; install it beside session-consumer"
        raise SettingsError(f"{where}: {reference}: there is no module {missing!r}; {remedy}") from error
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{where}: importing {module_name} raised {_described(error)}") from error
    walked = module_name
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = hint(part, [name for name in dir(found) if not name.startswith("_")])
            raise SettingsError(f"{where}: {reference}: {walked} has no {part!r}{near}")
        found = getattr(found, part)
        walked += f".{part}"
    return found


def _described(error: BaseException) -> str:
    """Describe an exception with its text: it was raised at import, so it cannot quote a record."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} at {error.filename}:{error.lineno}"
    return f"{type(error).__name__}: {error} at {raised_at(error)}"


def _construct(target: type, options: Mapping[str, Any], environment: Mapping[str, str], where: str) -> Any:
    parameters = {
        name: parameter
        for name, parameter in _signature_of(target, where).items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for name in options:
        if name not in parameters:
            raise SettingsError(f"{where}: {target.__name__} has no option {name!r}{hint(name, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise SettingsError(f"{where}: {target.__name__} needs the option {name!r}")
    annotations = _annotations_of(target, where)
    converted = {}
    for name, value in options.items():
        text = _pointed_at(value, environment, f"{where}.{name}")
        given, strict = (value, True) if text is None else (text, False)
        converted[name] = _converted(given, annotations.get(name, Any), f"{where}.{name}", strict=strict)
    try:
        return target(**converted)
    except SettingsError as error:
        raise SettingsError(f"{where.removesuffix('.options')}.{error}") from error
    except (Exception, SystemExit) as error:
        # Class and place only: the text may quote an option, which may be a secret.
        raise SettingsError(f"{where}: {target.__name__} refused its options with {place_of(error)}") from error


def _signature_of(target: type, where: str) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError as error:
        raise SettingsError(
            f"{where}: {target.__name__} has no signature, so its options are unknown; use a Python class"
        ) from error


def _annotations_of(target: type, where: str) -> dict[str, Any]:
    constructor: Any = getattr(target, "__init__")  # noqa: B009 - the class's own or inherited, as a plain function
    if constructor is object.__init__:
        return {}
    try:
        return typing.get_type_hints(constructor)
    except (NameError, TypeError) as error:
        raise SettingsError(
            f"{where}: the annotations of {target.__name__} cannot be read at run time ({error});"
            " import their types outside TYPE_CHECKING"
        ) from error


def _converted(value: Any, annotation: Any, where: str, *, strict: bool) -> Any:
    """Convert an option to its annotation. Errors name types, never the value, which may be a secret."""
    if isinstance(value, str) and (annotation is Path or Path in typing.get_args(annotation)):
        return Path(value)
    try:
        return msgspec.convert(value, annotation, strict=strict)
    except msgspec.ValidationError as error:
        message = str(error).replace("`", "").split(" - at")[0]
        shown = message if message.startswith(("Expected", "Object")) else "not one of the values it may have"
        raise SettingsError(f"{where}: {shown}") from None
    except TypeError:
        expected = getattr(annotation, "__name__", annotation)
        if isinstance(annotation, type) and isinstance(value, annotation):
            return value
        raise SettingsError(f"{where}: Expected {expected}, got {type(value).__name__}") from None


def _pointed_at(value: Any, environment: Mapping[str, str], where: str) -> str | None:
    """Return the text that ``{env = "X"}`` or ``{file = "path"}`` points to; None for any other value."""
    if not isinstance(value, dict) or set(value) not in ({"env"}, {"file"}):
        return None
    ((kind, name),) = value.items()
    if not isinstance(name, str):
        raise SettingsError(f"{where}: {{ {kind} = … }} takes a name in quotes")
    if kind == "env":
        if name not in environment:
            raise SettingsError(f"{where}: the environment variable {name} is not set")
        return environment[name]
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where}: cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from error


def extend_path(folders: list[str], path: list[str]) -> None:
    """Append ``folders`` to ``path`` (``sys.path``), each once.

    Raises SettingsError for a folder that holds a module with a name of this software.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise SettingsError(f"path: {folder} is not a folder")
        for name in ("consumer", "schemas"):
            if (Path(folder) / name).is_dir() or (Path(folder) / f"{name}.py").exists():
                raise SettingsError(
                    f"path: {folder} holds a module {name!r}, a name that this software uses; rename the module"
                )
        if os.path.abspath(folder) not in map(os.path.abspath, path):  # noqa: PTH100 - sys.path holds text
            path.append(folder)
