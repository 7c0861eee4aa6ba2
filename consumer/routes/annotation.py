"""The annotation of a handler's first parameter, and whether events of a type fit it."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from consumer.errors import SettingsError

EMPTY = inspect.Parameter.empty
UNIONS = (typing.Union, types.UnionType)


def resolved(annotation: Any, target: Callable[..., Any]) -> Any:
    """Return an annotation of a callable with its texts resolved to types; a text that cannot be resolved stays one.

    Annotations are texts under ``from __future__ import annotations``. A text cannot be resolved if it names a local
    class, or a type that is imported for type checkers only.
    """
    if annotation is EMPTY:
        return annotation

    def holder() -> None: ...

    holder.__annotations__ = {"event": annotation}
    try:
        return typing.get_type_hints(holder, _globals_of(target))["event"]
    except Exception:  # a text may be any expression
        return annotation


def _globals_of(target: Any) -> dict[str, Any]:
    if isinstance(target, functools.partial):
        return _globals_of(target.func)
    function = target if inspect.isroutine(target) else type(target).__call__
    found: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    return found


def is_list(annotation: Any) -> bool:
    """Whether an annotation is ``list[…]``, which asks for batches."""
    if isinstance(annotation, str):
        return annotation.strip("'\"").replace("typing.", "").startswith(("list[", "List["))
    return typing.get_origin(annotation) is list


def wants_bytes(annotation: Any) -> bool:
    """Whether a resolved annotation asks for the bytes of values, for lists of them, or for bytes and tombstones."""
    if is_list(annotation):
        return typing.get_args(annotation) == (bytes,)
    parts = typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,)
    return bytes in parts and {*parts} <= {bytes, types.NoneType}


def check_annotation(annotation: Any, types: Sequence[type], topic: str, where: str) -> None:
    """Raise SettingsError if an event of any of these types is not what a resolved annotation promises.

    Annotations that promise nothing about the type are accepted: none, ``Any``, type variables, unresolved texts; and
    ``bytes``, which every record has.
    """
    event = (typing.get_args(annotation) or (Any,))[0] if is_list(annotation) else annotation
    if isinstance(annotation, str) or wants_bytes(annotation):
        return
    for each in types:
        if not fits(event, each):
            name, are = each.__name__, "are" if len(types) == 1 else "may be"
            raise SettingsError(
                f"{where}: its first parameter is annotated {inspect.formatannotation(annotation)}, but the events of"
                f" topic {topic!r} {are} {each.__module__}.{name}; annotate it {name}, list[{name}] for batches, or"
                " nothing"
            )


def fits(annotation: Any, event_type: type) -> bool:
    """Whether an event of a type may be passed for a resolved annotation."""
    unknown = isinstance(annotation, typing.TypeVar | typing.ForwardRef | str)
    if unknown or annotation is EMPTY or annotation is Any:
        return True
    if isinstance(annotation, typing.NewType):
        return fits(annotation.__supertype__, event_type)
    origin = typing.get_origin(annotation)
    if origin in UNIONS:
        return any(fits(each, event_type) for each in typing.get_args(annotation))
    kind = origin or annotation
    if typing.is_typeddict(kind) or typing.is_typeddict(event_type):
        return kind in (event_type, dict, Mapping)
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    return issubclass(event_type, kind)
