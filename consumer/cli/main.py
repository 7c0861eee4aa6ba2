"""The command line: its group, and how every error leaves the process: one line, the right exit code."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click

import schemas
from consumer.cli.check import check
from consumer.cli.demo import demo
from consumer.cli.kafka import kafka
from consumer.cli.produce import produce
from consumer.cli.run import run
from consumer.errors import ConsumerError, SettingsError

INTERNAL_ERROR = 1
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("session-consumer"), prog_name="session-consumer")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def cli(*, debug: bool) -> None:
    """Consume session events from Kafka, hand them to your handlers, and say how it goes.

    \b
    Try it:      session-consumer demo
    Run it:      session-consumer run -c settings.toml
    Before that: session-consumer check -c settings.toml

    Exit codes: 0 clean, also after SIGTERM or SIGINT; 1 failed; 2 usage or settings; 69 Kafka unreachable at start;
    70 a handler's call would not end; 74 a partition halted and delivery.on_halt is "exit"; 130 and 143 after a
    second signal.
    """  # noqa: D301 - \b keeps click from joining the lines
    _ = debug


for command in (run, demo, check, kafka, produce):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(arguments: list[str]) -> int:
    """Run one command; return its exit code, with errors printed as one line on stderr."""
    debug = "--debug" in arguments
    # `--debug` is understood wherever it stands.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _require_own_packages()
        return int(cli.main(arguments, prog_name="session-consumer", standalone_mode=False) or 0)
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except ConsumerError as error:
        if debug:
            traceback.print_exc()
        return _say(str(error), error.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _say(f"internal error: {type(error).__name__}; --debug prints the traceback", INTERNAL_ERROR)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"session-consumer: {message}\n")
    return code


def _require_own_packages() -> None:
    """Refuse to run beside a stranger: `schemas` and `consumer` are names that others use too."""
    ours = Path(__file__).resolve().parent.parent.parent
    found = Path(schemas.__file__ or "").resolve().parent.parent
    if found != ours:
        raise SettingsError(
            f"the package 'schemas' comes from {found}, not from session-consumer; give it an environment of its own"
        )
