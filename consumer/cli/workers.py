"""The command line of the parent of several workers: ``run`` alone, so that no Kafka client is imported."""

from __future__ import annotations

import click

from consumer.cli.ending import run_group
from consumer.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True)
def cli(*, debug: bool) -> None:
    """Consume events from Kafka."""
    _ = debug


cli.add_command(run)


def run_cli(arguments: list[str]) -> int:
    """Run the command and return its exit code; print an error as one line on stderr."""
    return run_group(cli, arguments)
