"""Options of the ``dlq`` commands that filter dead letters."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from consumer.dead_letters.cause import REASONS
from consumer.dead_letters.filter import NO_CAP, Filter, sha256

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Parse a time in ISO 8601, in UTC if it has no zone, into milliseconds since 1970."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a time; write 2024-10-21, 2024-10-21T14:05:00 or 2024-10-21T14:05:00+02:00"
        ) from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)


OPTIONS = (
    click.option("--key", metavar="TEXT", help="Only letters with this key."),
    click.option(
        "--until",
        metavar="TIME",
        callback=milliseconds,
        help="Only records with a timestamp before this time (UTC).",
    ),
    click.option(
        "--since",
        metavar="TIME",
        callback=milliseconds,
        help="Only records with a timestamp from this time (UTC) on.",
    ),
    click.option(
        "--route",
        "routes",
        multiple=True,
        metavar="NAME",
        help="Only letters of this route; repeatable. none: letters without a route.",
    ),
    click.option(
        "--reason",
        "reasons",
        multiple=True,
        type=click.Choice(REASONS),
        help="Only letters with this reason; repeatable.",
    ),
)


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the filter options; the command gets a Filter as ``chosen``, without a limit of redrives."""

    @functools.wraps(command)
    def with_filter(
        *,
        reasons: tuple[str, ...],
        routes: tuple[str, ...],
        since: int | None,
        until: int | None,
        key: str | None,
        **others: Any,
    ) -> None:
        if since is not None and until is not None and since >= until:
            raise click.UsageError("--since must be before --until")
        digest = sha256(os.fsencode(key)) if key is not None else None
        chosen = Filter(sorted({*reasons}), sorted({*routes}), since, until, digest, NO_CAP)
        command(chosen=chosen, **others)

    for option in OPTIONS:
        with_filter = option(with_filter)
    return with_filter
