"""The command line: the group of all commands."""

from __future__ import annotations

from importlib.metadata import version

import click

from consumer.cli.check import check
from consumer.cli.demo import demo
from consumer.cli.dlq import dlq
from consumer.cli.ending import run_group
from consumer.cli.kafka import kafka
from consumer.cli.new_handler import new_handler
from consumer.cli.produce import produce
from consumer.cli.replay import replay
from consumer.cli.run import run
from consumer.cli.schema import schema
from consumer.cli.settings import settings
from consumer.cli.top import top


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("session-consumer"), prog_name="session-consumer")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def cli(*, debug: bool) -> None:
    """Consume events from Kafka, sessions or your own, call handlers with them, and export metrics.

    \b
    Try it:   session-consumer demo
    Check it: session-consumer check -c settings.toml
    Run it:   session-consumer run -c settings.toml

    Exit codes: 0 clean, also after SIGTERM or SIGINT; 1 failed; 2 usage or settings; 69 Kafka unreachable at start;
    70 stalled and given up, or a handler's call did not end; 74 a partition halted and delivery.on_halt is "exit";
    130 and 143 after a second signal.
    """  # noqa: D301 - \b keeps click from joining the lines
    _ = debug


for command in (run, demo, check, top, settings, schema, new_handler, kafka, produce, dlq, replay):
    cli.add_command(command)


def run_cli(arguments: list[str]) -> int:
    """Run one command and return its exit code; print an error as one line on stderr."""
    return run_group(cli, arguments)
