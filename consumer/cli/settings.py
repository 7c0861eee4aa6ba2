"""``session-consumer settings``: the effective settings with their origins, or a file to start from."""

from __future__ import annotations

from pathlib import Path

import click

from consumer.cli.options import loaded, settings_options
from consumer.settings.example import example
from consumer.settings.listing import listing


@click.command(short_help="Print every setting, its value and source.")
@click.option("--example", "as_example", is_flag=True, help="Print a settings file to start from instead.")
@settings_options
def settings(*, as_example: bool, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Print every setting with its value and where the value comes from.

    Secrets are hidden, and options of handlers are named without their values.
    """
    if as_example:
        click.echo(example(), nl=False)
        return
    read = loaded(config, overrides)
    for line in listing(read.settings, read.origins):
        click.echo(line)
