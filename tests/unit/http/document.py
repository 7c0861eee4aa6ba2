"""The status page parsed strictly, and statuses to render."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from consumer.http.page import Page
from consumer.http.status import Status
from tests.statuses import a_halt, a_hold, a_partition, a_status, a_troubled_status

EMPTY = a_status(
    state="starting",
    unready="not joined yet",
    partitions=[],
    history=[],
    last_commit_at=None,
    routes=[],
    versions={},
)
MANY = a_status(
    partitions=[a_partition(number, lag_records=number, state="reading") for number in range(256)],
    halts=[a_halt(*range(256))],
    holds=[a_hold(number) for number in range(256)],
)
each_status = pytest.mark.parametrize(
    "status", [EMPTY, MANY, a_status(), a_troubled_status()], ids=["empty", "many", "calm", "troubled"]
)

VOID = {"meta", "link", "br", "path", "polygon", "polyline", "rect", "input"}
CELLS = ("th", "td")


class Document(HTMLParser):
    """A strict parser: every element is closed in order, and every id is unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        """Each with the names of its attributes."""
        self.attributes: list[tuple[str, str, str | None]] = []
        self.said: dict[str, str] = {}
        self.rows: list[int] = []
        """Columns of each row of a table."""
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute of {tag} twice"
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.elements.append((tag, tuple(given)))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "tr":
            self.rows.append(0)
        if tag in CELLS:
            self.rows[-1] += int(given.get("colspan") or 1)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += f" {data.strip()}" if data.strip() else ""


def words(page: Page, status: Status) -> str:
    return " ".join(Document(page.render(status)).text.split())
