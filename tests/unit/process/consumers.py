"""``session-consumer run`` as a process on a fake broker."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.cluster import a_route
from tests.fakes.broker import FakeBroker
from tests.process import RunningConsumer

HANDLERS = Path(__file__).parent.parent.parent / "handlers"
LINES = "consumer.handlers.jsonl:JsonLines"


def a_consumer(broker: FakeBroker, folder: Path, routes: str, *overrides: str) -> RunningConsumer:
    """Prepare a daemon with these routes; enter it to start it."""
    settings = folder / "settings.toml"
    settings.write_text(f'path = ["{HANDLERS}"]\n{routes}')
    return RunningConsumer(settings, [*defaults(broker), *overrides])


def defaults(broker: FakeBroker) -> list[str]:
    return [
        f"kafka.bootstrap_servers={broker.bootstrap_servers}",
        f"kafka.topics={broker.topic}",
        "dead_letter.topic=",
        "delivery.commit_interval_seconds=0.05",
        "delivery.drain_seconds=2",
        "http.port=0",
        "log.format=json",
    ]


def lines_to(path: Path, name: str = "lines") -> str:
    """Return a route that appends to a file."""
    return a_route(LINES, name, path=path)


def a_free_port() -> int:
    """Choose a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def lines_of(path: Path) -> int:
    """Count the lines of a file; 0 if it is missing."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
