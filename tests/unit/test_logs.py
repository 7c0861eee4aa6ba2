"""Log lines: one event per line, no payload unless allowed, and little from libraries."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.logs import Sparingly, WrittenAside, configure_logging
from consumer.settings.sections import Log

Format = Literal["json", "console"]
FORMATS: list[Format] = ["json", "console"]
PHONE = "+18042221111"
QUIET = ["aiokafka", "aiokafka.conn", "aiohttp", "asyncio"]


class Lines(io.StringIO):
    """The lines that were logged."""

    def take(self) -> list[str]:
        """Return the lines since the last call, split as a terminal or a collector splits them."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        assert text == "" or text.endswith("\n")
        return text.split("\n")[:-1]


Configure = Callable[..., Lines]


@pytest.fixture
def configured() -> Iterator[Configure]:
    """Configure logging into a text; restore the previous configuration when the test ends."""
    root = logging.getLogger()
    before = (root.handlers, root.level, {name: logging.getLogger(name).level for name in QUIET})

    def configure(**fields: Any) -> Lines:
        lines = Lines()
        configure_logging(Log(**fields), lines)
        return lines

    yield configure
    root.handlers, level, levels = before
    root.setLevel(level)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)
    structlog.reset_defaults()


def test_lines_of_a_worker_have_its_number() -> None:
    """Each line, also one of a library, names the worker."""
    root, lines = logging.getLogger(), Lines()
    before = root.handlers, root.level
    try:
        configure_logging(Log(format="json"), lines, worker=3)
        structlog.get_logger("consumer.x").info("began")
        logging.getLogger("elsewhere").warning("late")
    finally:
        root.handlers, level = before
        root.setLevel(level)
        structlog.reset_defaults()
    assert [json.loads(line)["worker"] for line in lines.take()] == [3, 3]


def test_a_line_is_json_off_a_terminal(configured: Configure) -> None:
    """Without a terminal a line is one JSON object: event, keys, level, logger and time."""
    lines = configured()
    structlog.get_logger("consumer.test").info("joined", partitions=3)
    (line,) = lines.take()
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {"event": "joined", "partitions": 3, "level": "info", "logger": "consumer.test"}


def test_a_line_is_for_people_on_a_terminal(configured: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line is coloured text; ``log.format`` overrides that."""
    monkeypatch.setattr(Lines, "isatty", lambda _: True)
    lines = configured()
    structlog.get_logger("consumer.test").info("joined", partitions=3)
    (line,) = lines.take()
    assert "joined" in line
    assert "\x1b[" in line
    lines = configured(format="json")
    structlog.get_logger("consumer.test").info("joined", partitions=3)
    assert json.loads(lines.take()[0])["event"] == "joined"


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("allowed", [True, False])
def test_a_payload_is_logged_only_when_allowed(configured: Configure, log_format: Format, allowed: bool) -> None:
    """The key ``payload`` is dropped unless ``log.payloads`` is true; the rest of the line stays."""
    lines = configured(format=log_format, payloads=allowed)
    structlog.get_logger("consumer.test").info("session", offset=7, payload={"source": PHONE})
    (line,) = lines.take()
    assert (PHONE in line) == ("payload" in line) == allowed
    assert "offset" in line


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_dropped(configured: Configure, level: str) -> None:
    """Lines below the configured level are dropped, ours and a library's alike."""
    levels = ["debug", "info", "warning", "error"]
    lines = configured(level=level)
    for each in levels:
        getattr(structlog.get_logger("consumer.test"), each)("ours")
        getattr(logging.getLogger("library"), each)("theirs")
    said = [(json.loads(line)["event"], json.loads(line)["level"]) for line in lines.take()]
    expected = levels[levels.index(level) :]
    assert said == [(event, each) for each in expected for event in ("ours", "theirs")]


FORGED = [
    "a\nb",
    "a\r\nb",
    "a\x1b[31mb",
    "a\x1b]0;title\x07b",
    "a\x85b",
    "a\u2028b",
    "a\x00b",
    "a\x9b31mb",
    "a\u202eb",
    "\n" * 3,
]


def forges(line: str) -> bool:
    """Tell whether a line holds a character that a terminal or a line reader would act on."""
    return not line.isprintable()


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("text", FORGED, ids=ascii)
def test_no_text_forges_a_line(configured: Configure, log_format: Format, text: str) -> None:
    """No event name and no value makes a second line or moves a terminal's cursor."""
    lines = configured(format=log_format)
    log = structlog.get_logger("consumer.test")
    log.info(text)
    log.info("named", value=text)
    log.info("nested", value=[text, {text: text}], other=(text,))
    log.info("bytes", value=text.encode())
    log.info("object", value=ValueError(text))
    logging.getLogger("library").warning("said %s", text)
    logging.getLogger(f"library.{text}").warning("named")
    found = lines.take()
    assert len(found) == 7
    assert [line for line in found if forges(line)] == []


@pytest.mark.parametrize("log_format", FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text())
def test_any_text_is_one_line(configured: Configure, log_format: Format, event: str, value: str) -> None:
    """An event with any name and any values is one printable line."""
    lines = configured(format=log_format)
    structlog.get_logger("consumer.test").info(event, value=value)
    (line,) = lines.take()
    assert not forges(line)


@pytest.mark.parametrize("log_format", FORMATS)
def test_an_exception_is_logged_without_its_text(configured: Configure, log_format: Format) -> None:
    """An exception is logged by its class, never by its text, which may quote values."""
    lines = configured(format=log_format)

    def fail() -> None:
        raise ValueError(PHONE)

    try:
        fail()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request")
        structlog.get_logger("consumer.test").exception("failed")
    found = lines.take()
    assert len(found) == 2
    assert [line for line in found if PHONE in line] == []
    assert [line for line in found if "ValueError" not in line] == []


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
@pytest.mark.parametrize("name", ["aiokafka", "aiokafka.conn", "aiokafka.consumer.group_coordinator", "aiohttp.access"])
def test_libraries_are_quiet(configured: Configure, level: str, name: str) -> None:
    """Kafka's client, which prints passwords and payloads at DEBUG, never logs below WARNING."""
    configured(level=level)
    assert logging.getLogger(name).getEffectiveLevel() >= logging.WARNING
    assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    assert logging.getLogger(name).getEffectiveLevel() >= logging.getLogger().level


def say(name: str, message: str, at: float, *arguments: Any) -> None:
    """Log a warning at a given time in seconds."""
    logger = logging.getLogger(name)
    record = logger.makeRecord(name, logging.WARNING, "f.py", 1, message, arguments, None)
    record.created = at
    logger.handle(record)


def test_a_repeated_message_is_logged_once(configured: Configure) -> None:
    """A message of the client is logged at most once in ten seconds; other messages do not count."""
    lines = configured()
    for half in range(50):
        say("aiokafka.client", "node %s is away", half / 2, half)
    said = [json.loads(line)["event"] for line in lines.take()]
    assert said == ["node 0 is away", "node 20 is away", "node 40 is away"]
    say("aiokafka.client", "another", 24.0)
    say("aiokafka.cluster", "node %s is away", 24.0, 1)
    assert len(lines.take()) == 2


def test_many_messages_are_still_limited(configured: Configure) -> None:
    """Thousands of different messages do not end the limit of a repeated one."""
    lines = configured()
    for number in range(3000):
        say("aiokafka.client", f"message {number}", 1.0)
        say("aiokafka.client", f"message {number}", 2.0)
    assert len(lines.take()) == 3000


@pytest.mark.parametrize("message", ["Group Coordinator Request failed: %s", "Unable connect to node %s"])
def test_normal_client_messages_are_dropped(configured: Configure, message: str) -> None:
    """Messages that the client logs in every normal start or outage are dropped; the daemon logs its own."""
    lines = configured()
    say("aiokafka.client", message, 1.0, "x")
    assert lines.take() == []


def test_our_lines_are_never_limited(configured: Configure) -> None:
    """Only the client's messages are limited, not ours or another library's."""
    lines = configured()
    for _ in range(3):
        say("aiohttp.server", "the same", 1.0)
        structlog.get_logger("consumer.delivery.engine").warning("the same")
    assert len(lines.take()) == 6


def test_configuring_twice_logs_once(configured: Configure) -> None:
    """Configuring again replaces the earlier configuration: no line is written twice."""
    first, second = configured(), configured()
    structlog.get_logger("consumer.test").info("joined")
    assert first.take() == []
    assert len(second.take()) == 1


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("consumer.logs.time.monotonic", lambda: self.now)


class Said:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        self.lines.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append(("warning", event, values))


def test_a_storm_is_logged_sparingly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of a route is logged five times in ten seconds; the next line has the number of dropped ones."""
    clock, said = Clock(monkeypatch), Said()
    log = Sparingly(said)
    for offset in range(1000):
        log.warning("failed", route="a", offset=offset)
    assert [values["offset"] for _, _, values in said.lines] == [0, 1, 2, 3, 4]
    clock.now += 9.9
    log.warning("failed", route="a", offset=1000)
    assert len(said.lines) == 5
    clock.now += 0.1
    log.warning("failed", route="a", offset=1001)
    assert said.lines[5:] == [("warning", "failed", {"route": "a", "offset": 1001, "suppressed": 996})]
    clock.now += 10
    log.info("failed", route="a")
    assert said.lines[6:] == [("info", "failed", {"route": "a"})]


def test_each_event_and_route_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event and each route has its own limit; so have events without a route."""
    Clock(monkeypatch)
    said = Said()
    log = Sparingly(said)
    for _ in range(10):
        log.info("failed", route="a")
        log.info("failed", route="b")
        log.info("waits", route="a")
        log.info("failed")
    assert len(said.lines) == 20


@given(gaps=st.lists(st.floats(0, 12), max_size=60))
def test_every_line_is_logged_or_counted(gaps: list[float]) -> None:
    """Every dropped line is counted by the next logged one, or belongs to the current window."""
    with pytest.MonkeyPatch.context() as patched:
        clock, said = Clock(patched), Said()
        log = Sparingly(said)
        for gap in gaps:
            clock.now += gap
            log.info("failed")
        clock.now += 10
        log.info("failed")
    counted = sum(1 + values.get("suppressed", 0) for _, _, values in said.lines)
    assert counted == len(gaps) + 1


class Unread(Lines):
    """A stream whose writes wait until somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = threading.Event()

    def write(self, text: str) -> int:
        assert self.reader.wait(10)
        return super().write(text)


def test_a_thread_whose_lines_are_written_aside_waits_for_no_reader(configured: Configure) -> None:
    """Lines of that thread wait elsewhere, in order; what is too much is dropped and counted, and others block."""
    configured(format="json")
    unread = Unread()
    configure_logging(Log(format="json"), unread)
    aside = WrittenAside()
    with aside:
        structlog.get_logger("test").info("first")
        while aside._queue.qsize():  # until the writer waits for the reader with it
            pass
        for number in range(aside.LINES + 3):
            structlog.get_logger("test").info("line", number=number)
        aside.wait(0.01)
        assert unread.getvalue() == ""
        other = threading.Thread(target=structlog.get_logger("other").info, args=("blocks",))
        other.start()
        assert other.is_alive()
        unread.reader.set()
        aside.wait(10)
        other.join()
    structlog.get_logger("test").info("after")
    found = [json.loads(line) for line in unread.take()]
    own = [line for line in found if line["logger"] != "other"]
    assert [line["event"] for line in own if line["event"] != "line"] == ["first", "log_lines_dropped", "after"]
    assert [line["number"] for line in own if line["event"] == "line"] == list(range(aside.LINES))
    assert next(line for line in own if line["event"] == "log_lines_dropped")["lines"] == 3


def test_the_last_lines_of_a_thread_are_written(configured: Configure) -> None:
    """When its block is left, all lines of the thread are written, and what was dropped is counted."""
    lines = configured(format="json")
    aside = WrittenAside()
    with aside:
        for number in range(aside.LINES):
            structlog.get_logger("test").info("line", number=number)
    found = [json.loads(line) for line in lines.take()]
    dropped = sum(line["lines"] for line in found if line["event"] == "log_lines_dropped")
    assert sum(line["event"] == "line" for line in found) == aside.LINES - dropped
    assert found[0]["number"] == 0


def test_leaving_waits_for_no_reader(configured: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody reads, the block is left, and the lines are written if somebody reads later."""
    configured(format="json")
    monkeypatch.setattr(WrittenAside, "EXIT_SECONDS", 0.01)
    unread = Unread()
    configure_logging(Log(format="json"), unread)
    aside = WrittenAside()
    with aside:
        structlog.get_logger("test").info("line")
    assert unread.getvalue() == ""
    unread.reader.set()
    for each in threading.enumerate():
        if each.name == "session-consumer-log":
            each.join(10)
    assert [json.loads(line)["event"] for line in unread.take()] == ["line"]
