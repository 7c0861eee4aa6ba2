"""Loading settings in tests, and the messages of refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.errors import SettingsError
from consumer.settings.environment import PREFIX
from consumer.settings.sections import RouteRetry, Settings
from consumer.settings.sources import ENTRIES, Loaded, load_settings

SECRET = "hunter2-s3cret"


def leaves(struct: Any = Settings, above: str = "") -> Iterator[str]:
    """Name every setting that has no settings below it; a route's ``retry`` stands for those below it."""
    for field in msgspec.structs.fields(struct):
        kind: Any = ENTRIES.get(field.name, field.type) if not above else field.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not RouteRetry:
            yield from leaves(kind, f"{above}{field.name}.")
        else:
            yield above + field.name


def a_file(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def loaded(*overrides: str, file: Path | None = None, **environment: str) -> Loaded:
    """Load settings; environment variables are given without their prefix."""
    return load_settings(file, {PREFIX + name: value for name, value in environment.items()}, overrides)


def refusal(*overrides: str, file: Path | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(*overrides, file=file, **environment)
    return str(refused.value)


def variable_of(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def refusal_of_variable(variable: str, text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {variable: text})
    return str(refused.value)
