"""The guard: a process that ends one broker's Java when its parent ends: ``guard.py [--remove FOLDER] -- java ...``.

It runs in a separate process and session (Ctrl-C in a terminal does not reach Java), and needs the standard library
only. Its input is a pipe that the parent keeps open and never writes to: the end of input means that the parent has
ended in any way, SIGKILL included. Its output is one line, Java's process id; Java's own output goes to stderr. It ends
with Java's exit code (128 + N for signal N), after it has removed FOLDER.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

GRACE_SECONDS = 10.0
STDIN, STDOUT, STDERR = 0, 1, 2
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--remove", metavar="FOLDER")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    signals = listen_for_signals()
    try:
        return run(options.command, signals)
    finally:
        if options.remove:
            shutil.rmtree(options.remove, ignore_errors=True)


def listen_for_signals() -> int:
    """Turn signals into bytes on a pipe, so that one ``select`` waits for signals and for the end of input."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    return reading


def run(command: list[str], signals: int) -> int:
    java = subprocess.Popen(  # noqa: S603 - the command comes from our own parent
        command,
        stdin=subprocess.DEVNULL,
        stdout=STDERR,
        preexec_fn=die_with_the_guard(),  # noqa: PLW1509 - this process has one thread
    )
    try:
        with contextlib.suppress(BrokenPipeError):  # the parent has ended, which watch() notices
            os.write(STDOUT, f"{java.pid}\n".encode())
        watch(java, signals)
    finally:
        java.kill()
        code = java.wait()
    return code if code >= 0 else 128 - code


def die_with_the_guard() -> Callable[[], None] | None:
    """Have the kernel kill Java when this process is killed with SIGKILL. Only Linux can do that."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(java: subprocess.Popen[bytes], signals: int) -> None:
    """Return when Java has ended, or when it must be killed at once."""
    deadline = float("inf")
    while java.poll() is None and time.monotonic() < deadline:
        grace = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([STDIN, signals], [], [], grace)
        if STDIN in ready and not os.read(STDIN, 1):
            return
        if signals in ready and set(os.read(signals, 64)) != {signal.SIGCHLD}:
            java.send_signal(signal.SIGTERM)
            java.send_signal(signal.SIGCONT)  # so that a Java process that a test has stopped can end
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
