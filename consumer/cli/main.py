"""The command line: the group of commands, and the exit code and message of every error."""

from __future__ import annotations

import io
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path

import click

from consumer.cli.check import check
from consumer.cli.demo import demo
from consumer.cli.dlq import dlq
from consumer.cli.kafka import kafka
from consumer.cli.new_handler import new_handler
from consumer.cli.produce import produce
from consumer.cli.replay import replay
from consumer.cli.run import run
from consumer.cli.schema import schema
from consumer.cli.settings import settings
from consumer.cli.top import top
from consumer.errors import ConsumerError

INTERNAL_ERROR = 1
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("session-consumer"), prog_name="session-consumer")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def cli(*, debug: bool) -> None:
    """Consume session events from Kafka, pass them to handlers, and export metrics.

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
    _make_streams_safe()
    debug = "--debug" in arguments
    # `--debug` may stand anywhere.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return int(cli.main(arguments, prog_name="session-consumer", standalone_mode=False) or 0)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _report(error)


def _report(error: Exception) -> int:
    """Print an error in one line; return its exit code."""
    match error:
        case ConsumerError():
            message, code = str(error), error.exit_code
        case BrokenPipeError():  # the reader of our output has ended, such as `| head`
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end
            return 0
        case OSError():
            message, code = f"the output cannot be written, or a file cannot be used: {error}", INTERNAL_ERROR
        case _:
            message = f"internal error: {type(error).__name__}; --debug prints the traceback"
            code = INTERNAL_ERROR
    sys.stderr.write(f"session-consumer: {message}\n")
    return code


def _make_streams_safe() -> None:
    """Make printing never fail: a stream may be closed, or may not encode every character."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
