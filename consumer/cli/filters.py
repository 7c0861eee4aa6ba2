"""Options that choose dead letters."""

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


def _milliseconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Read a time as people and ``dlq show`` write it, UTC when it names no zone; milliseconds since 1970."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is no time; write 2024-10-21, 2024-10-21T14:05:00 or 2024-10-21T14:05:00+02:00"
        ) from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose letters; the command gets them as ``chosen``, without a cap on redrives."""

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
            raise click.UsageError("--since is not before --until, so no letter is between them")
        digest = sha256(os.fsencode(key)) if key is not None else None
        chosen = Filter(sorted({*reasons}), sorted({*routes}), since, until, digest, NO_CAP)
        command(chosen=chosen, **others)

    for option in (
        click.option("--key", metavar="TEXT", help="Only letters with this key."),
        click.option(
            "--until",
            metavar="TIME",
            callback=_milliseconds,
            help="Only records before this time, by their own timestamps.",
        ),
        click.option("--since", metavar="TIME", callback=_milliseconds, help="Only records from this time (UTC) on."),
        click.option(
            "--route",
            "routes",
            multiple=True,
            metavar="NAME",
            help="Only letters of this route; repeatable. none: of no route.",
        ),
        click.option("--reason", "reasons", multiple=True, type=click.Choice(REASONS), help="Only these; repeatable."),
    ):
        with_filter = option(with_filter)
    return with_filter
