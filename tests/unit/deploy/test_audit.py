"""The audit of pinned versions: a known vulnerability fails it, and a database that is missing does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.audit import audit, pinned_versions

Answer = Callable[[str, Any], Any]


@contextmanager
def a_database(answer: Answer) -> Iterator[str]:
    """Serve a vulnerability database; ``answer`` gets the path and the body of a request, and None is a failure."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = answer(self.path, json.loads(body) if body else None)
            sent = json.dumps(found).encode()
            self.send_response(200 if found is not None else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST  # noqa: N815 - the name is the base class's

        def log_request(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_every_pinned_version_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """All versions of requirements/ are compared; without a known vulnerability the audit passes."""
    asked: list[tuple[str, str]] = []

    def answer(path: str, body: Any) -> Any:
        asked.extend((each["package"]["name"], each["version"]) for each in body["queries"])
        return {"results": [{}] * len(body["queries"])}

    with a_database(answer) as url:
        assert audit(url) == 0
    assert sorted(asked) == pinned_versions()
    assert ("aiokafka", "0.14.0") in asked
    assert "NOT DONE" not in capsys.readouterr().out


def test_a_vulnerable_version_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A version with a known vulnerability is named with it, and fails the audit."""

    def answer(path: str, body: Any) -> Any:
        if body is None:
            return {"id": "GHSA-1", "modified": "2026-01-01T00:00:00Z", "summary": "reads any file", "affected": []}
        names = [each["package"]["name"] for each in body["queries"]]
        vulnerable = {"vulns": [{"id": "GHSA-1", "modified": "2026-01-01T00:00:00Z"}]}
        return {"results": [vulnerable if name == "aiohttp" else {} for name in names]}

    with a_database(answer) as url:
        assert audit(url) == 1
    out = capsys.readouterr().out
    assert "GHSA-1" in out
    assert "aiohttp" in out


def test_without_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    """A database that fails, or that does not answer in time, is named as the reason why nothing was audited."""
    released = threading.Event()

    def hangs(path: str, body: Any) -> None:
        released.wait(30)

    with a_database(lambda path, body: None) as url:
        assert audit(url) == 0
    with a_database(hangs) as url:
        assert audit(url, seconds=1.0) == 0
        released.set()
    assert capsys.readouterr().out.count("audit: NOT DONE") == 2
