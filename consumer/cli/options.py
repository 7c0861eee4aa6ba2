"""Options of several commands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from consumer.settings.sources import Loaded, load_settings


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``-c`` and ``--set``; the command gets ``config`` and ``overrides``, for ``loaded``."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one setting, such as kafka.group_id=mine; repeatable.",
    )(command)
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        help="Settings file (TOML). Without it: defaults and environment.",
    )(command)


def require_rate(rate: float) -> None:
    """Raise UsageError for a ``--rate`` that is not finite."""
    if not math.isfinite(rate):
        raise click.UsageError(f"--rate {rate} is not a number of records a second")


def loaded(config: Path | None, overrides: tuple[str, ...]) -> Loaded:
    """Read the settings from file, environment and ``--set``."""
    return load_settings(config, os.environ, overrides)
