"""Log lines on stderr: an event name and keys, as text on a terminal and as JSON elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Full, Queue
from typing import Any, Self, TextIO

import structlog
from structlog.typing import EventDict, Processor

from consumer.errors import place_of
from consumer.settings.sections import Log

log = structlog.get_logger("consumer.logs")


def configure_logging(settings: Log, stream: TextIO | None = None, worker: int = 0) -> None:
    """Set up structlog and the standard library's logging; called once by each command.

    Each line has the number of the ``worker``, unless that is 0. Libraries log at WARNING or above, whatever the level
    is: at DEBUG they print passwords and payloads.
    """
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Payloads(allowed=settings.payloads),
        _no_exception_text,
        *([partial(_number, worker)] if worker else []),
    ]
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _one_line, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("aiokafka", "aiohttp", "asyncio", "opentelemetry", "urllib3", "boto3", "botocore"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # aiokafka logs an unreachable broker a thousand times; we log it once.
    logging.getLogger("aiokafka.conn").setLevel(logging.ERROR)
    handler.addFilter(_Repeats())


class _Payloads:
    """Drops the key ``payload`` unless ``log.payloads`` allows it: events hold personal data."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        if not self._allowed:
            event.pop("payload", None)
        return event


def _no_exception_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace an exception by its class and place: its text and its locals may hold an event.

    asyncio's own messages ("Task exception was never retrieved") have the exception's text in their second line.
    """
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["error"] = place_of(error)
    if event.get("logger") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _number(worker: int, _logger: Any, _method: str, event: EventDict) -> EventDict:
    event["worker"] = worker
    return event


def _one_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in values, so that no value can forge a log line or a colour."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event


class _Repeats(logging.Filter):
    """Limits each message of a library to one in ten seconds, and drops the messages of normal operation.

    The first use of a group finds no coordinator for a moment, and the client asks again. An unreachable broker is
    logged once by us, and ``/readyz`` shows it.
    """

    LONGEST = 200
    """Characters of a message that tell it from others."""
    NORMAL = ("Group Coordinator Request failed", "Unable connect to ")

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(("aiokafka", "opentelemetry", "urllib3")):
            return True
        if str(record.msg).startswith(self.NORMAL):
            return False
        key = f"{record.name}{record.msg}"[: self.LONGEST]
        if record.created - self._last.get(key, float("-inf")) < 10:
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = record.created
        return True


class WrittenAside:
    """Writes the lines of one thread from another one, so that the first never waits for a reader of stderr.

    Entered and left in the first thread; leaving waits ``EXIT_SECONDS`` at most for the lines that are not written yet.
    When ``LINES`` wait to be written, further ones are dropped and counted.
    """

    LINES = 1000
    EXIT_SECONDS = 2.0

    def __init__(self) -> None:
        self._queue: Queue[Callable[[], object] | None] = Queue(self.LINES)
        self._dropped = 0
        self._thread = 0
        self._kept: list[tuple[logging.Handler, Callable[[logging.LogRecord], bool]]] = []

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        for handler in logging.getLogger().handlers:
            keep = partial(self._keep, handler)
            handler.filters.insert(0, keep)  # a filter is asked before the handler's lock is taken
            self._kept.append((handler, keep))
        threading.Thread(target=self._write, name="session-consumer-log", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for handler, keep in self._kept:
            handler.removeFilter(keep)
        self.wait(self.EXIT_SECONDS)
        self._put(None)

    def wait(self, seconds: float) -> None:
        """Wait until all lines are written, but no longer than some seconds."""
        written, until = threading.Event(), time.monotonic() + seconds
        with contextlib.suppress(Full):
            self._queue.put(written.set, timeout=seconds)
            written.wait(until - time.monotonic())

    def _keep(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        """Filter a handler's records: those of the first thread are put aside."""
        if threading.get_ident() != self._thread:
            return True
        if not self._put(partial(handler.handle, record)):
            self._dropped += 1
        return False

    def _put(self, work: Callable[[], object] | None) -> bool:
        with contextlib.suppress(Full):
            self._queue.put_nowait(work)
            return True
        return False

    def _write(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they must reach the main thread
        while (work := self._queue.get()) is not None:
            work()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                log.warning("log_lines_dropped", lines=dropped)


class Sparingly:
    """A logger that writes each event of a route at most five times in ten seconds.

    The next line after that has the number of dropped lines as ``suppressed``. A thousand failures a second must not
    become a thousand lines a second.
    """

    LINES = 5
    SECONDS = 10.0

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._windows: dict[tuple[str, Any], tuple[float, int]] = {}
        """Start of the window and number of lines requested in it, by event and route."""

    def info(self, event: str, **values: Any) -> None:
        """Log an event that needs nobody."""
        self._write(self._logger.info, event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Log an event that a person should know of."""
        self._write(self._logger.warning, event, values)

    def _write(self, write: Callable[..., Any], event: str, values: dict[str, Any]) -> None:
        key, now = (event, values.get("route")), time.monotonic()
        began, count = self._windows.get(key, (now, 0))
        if now - began >= self.SECONDS:
            if count > self.LINES:
                values["suppressed"] = count - self.LINES
            began, count = now, 0
        self._windows[key] = began, count + 1
        if count < self.LINES:
            write(event, **values)
