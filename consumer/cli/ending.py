"""The end of a command: its exit code, and one line about an error."""

from __future__ import annotations

import io
import os
import sys
import traceback
from pathlib import Path

import click

from consumer.errors import ConsumerError

INTERNAL_ERROR = 1
INTERRUPTED = 130


def run_group(group: click.Group, arguments: list[str]) -> int:
    """Run one command of a group and return its exit code; print an error as one line on stderr."""
    _make_streams_safe()
    debug = "--debug" in arguments
    # `--debug` may stand anywhere.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return int(group.main(arguments, prog_name="session-consumer", standalone_mode=False) or 0)
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
    """Print an error, with its notes before it, in one line; return its exit code."""
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
    where = "".join(f"{each}: " for each in getattr(error, "__notes__", ()))
    sys.stderr.write(f"session-consumer: {where}{message}\n")
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
