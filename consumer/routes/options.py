"""Options of a route: what they point to, their types, and the handler that is made with them."""

from __future__ import annotations

import contextlib
import inspect
import stat
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from consumer.errors import SettingsError, hint, place_of
from consumer.settings.files import read_value


def construct(
    target: type,
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    where: str,
    *,
    on_command_line: bool,
    worker: int = 0,
) -> Any:
    """Make a handler of a class and its options; ``where`` names the options in errors, ``worker`` numbers files.

    Raises SettingsError for options that do not fit, and for a literal secret if they stood ``on_command_line``. No
    message holds a value.
    """
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
        annotation, literal = annotations.get(name, Any), not _points(value)
        if literal and on_command_line and _is_marked(annotation, "secret"):
            raise SettingsError(
                f'{where}.{name}: a secret on the command line is visible in ps; write {{ env = "X" }} or'
                ' { file = "path" } instead'
            )
        given = _followed(value, environment, f"{where}.{name}")
        converted[name] = _converted(given, annotation, f"{where}.{name}", strict=literal)
    if worker:
        converted |= _files_of(worker, converted, parameters, annotations, where)
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
        return typing.get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError) as error:
        raise SettingsError(
            f"{where}: the annotations of {target.__name__} cannot be read at run time ({error});"
            " import their types outside TYPE_CHECKING"
        ) from error


def _converted(value: Any, annotation: Any, where: str, *, strict: bool) -> Any:
    """Convert an option to its annotation. Errors name types, never the value, which may be a secret."""
    if isinstance(value, str) and _is_path(annotation):
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


def _files_of(
    worker: int,
    options: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
    annotations: Mapping[str, Any],
    where: str,
) -> dict[str, Path]:
    """Return the options annotated ``consumer.WorkerPath``, defaults included, with the worker's number.

    Raises SettingsError for what is no file. Beside a device or a pipe a file would begin that nobody looks for.
    """
    found: dict[str, Path] = {}
    for name, parameter in parameters.items():
        path = options.get(name, parameter.default)
        if isinstance(path, Path) and _is_marked(annotations.get(name, Any), "worker"):
            if not path.name or _is_no_file(path):
                raise SettingsError(f"{where}.{name}: with --workers it must be the name of a regular file")
            found[name] = path.with_name(f"{path.stem}-{worker}{path.suffix}")
    return found


def _is_no_file(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a missing file, or one in a folder that cannot be searched
        return not stat.S_ISREG(path.stat().st_mode)
    return False


def _is_path(annotation: Any) -> bool:
    return annotation is Path or any(map(_is_path, typing.get_args(annotation)))


def _is_marked(annotation: Any, mark: str) -> bool:
    """Whether an option is annotated with a mark, as ``consumer.Secret`` has one, alone or in a union."""
    metas = [each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, msgspec.Meta)]
    if any((meta.extra or {}).get(mark) for meta in metas):
        return True
    return any(_is_marked(each, mark) for each in typing.get_args(annotation))


def _points(value: Any) -> bool:
    """Whether a value is ``{ env = "X" }`` or ``{ file = "path" }``."""
    return isinstance(value, dict) and set(value) in ({"env"}, {"file"})


def _followed(value: Any, environment: Mapping[str, str], where: str) -> Any:
    """Return a value with the text that it, or what is in its tables, points to."""
    if not isinstance(value, dict):
        return value
    if not _points(value):
        return {name: _followed(each, environment, f"{where}.{name}") for name, each in value.items()}
    ((kind, name),) = value.items()
    if not isinstance(name, str):
        raise SettingsError(f"{where}: {{ {kind} = … }} takes a name in quotes")
    if kind == "env":
        if name not in environment:
            raise SettingsError(f"{where}: the environment variable {name} is not set")
        return environment[name]
    try:
        return read_value(Path(name))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where}: cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from error
