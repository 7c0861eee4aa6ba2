"""Importing what settings name as ``module:attribute``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from consumer.errors import SettingsError, hint, raised_at

Find = Callable[[str, str], Any]
"""Takes a reference and the setting that holds it; returns what it names, or raises SettingsError."""


def import_reference(reference: str, where: str) -> Any:
    """Import a ``module:attribute``; ``where`` names the setting. Raises SettingsError."""
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
    except SettingsError as error:
        raise SettingsError(f"{where}: {reference}: {error}") from error
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
