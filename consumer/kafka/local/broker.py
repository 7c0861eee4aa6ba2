"""One broker of a local Kafka: its Java process, its guard and its log."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from consumer.errors import LocalKafkaError

GUARD = Path(__file__).with_name("guard.py")
JAVA_FLAGS = ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
KILL_SECONDS = 5.0


class Broker:
    """A Java process with a guard; owned by LocalKafka, runs once from ``start`` to ``close``.

    The log stays open, so that it can be read after the guard has removed the folder.
    """

    def __init__(self, node: int, port: int, folder: Path, *, temporary: bool) -> None:
        self.node = node
        self.port = port
        self.folder = folder
        self.temporary = temporary
        self._guard: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None

    def start(self, java: Path, jars: list[Path]) -> None:
        """Start the guard, which starts Java. Raises OSError."""
        self._log = (self.folder / "broker.log").open("w+b")
        remove = ["--remove", str(self.folder)] if self.temporary else []
        logging = f"-Dlog4j2.configurationFile={(self.folder / 'log4j2.properties').as_uri()}"
        classes = os.pathsep.join(str(jar) for jar in jars)
        settings = str(self.folder / "server.properties")
        command = [str(java), *JAVA_FLAGS, logging, "-cp", classes, "kafka.Kafka", settings]
        self._guard = subprocess.Popen(  # noqa: S603 - no shell, our own program
            [sys.executable, "-I", "-S", str(GUARD), *remove, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            cwd=self.folder,
        )

    @cached_property
    def process_id(self) -> int:
        """Java's process id. Blocks until the guard writes it, some milliseconds after ``start``."""
        assert self._guard is not None
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise LocalKafkaError(f"Java did not start; the log of broker {self.node}:\n{self.log(20)}")
        return int(line)

    def exit_code(self) -> int | None:
        """Return the exit code, 128 + N after signal N; None while it runs."""
        return self._guard.poll() if self._guard else None

    def log(self, lines: int) -> str:
        """Return the last lines of the log."""
        if self._log is None or self._log.closed:
            return ""
        descriptor = self._log.fileno()
        size = os.fstat(descriptor).st_size
        text = os.pread(descriptor, 65536, max(0, size - 65536)).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def terminate(self) -> None:
        """Ask Java to shut down in order."""
        if self._guard is not None:
            self._guard.send_signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Kill Java at once, if it still runs: the guard takes the end of its input for our death."""
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()

    def close(self) -> None:
        """Wait for the end after ``terminate`` or ``hang_up``, and free all resources. Never raises."""
        self.hang_up()
        if self._guard is not None and self._guard.stdout is not None:
            try:
                self._guard.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
            self._guard.stdout.close()
        if self._log is not None:
            self._log.close()
        if self.temporary:  # the guard does it, unless it was killed or never started
            shutil.rmtree(self.folder, ignore_errors=True)
