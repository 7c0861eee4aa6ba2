"""The status page as text: well formed, escaped, and without external resources."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

import consumer.http
from consumer.http.page import Page
from consumer.http.status import MembershipStatus, Status
from consumer.settings.listing import plain_settings
from consumer.settings.sections import Kafka, Settings
from tests.statuses import a_stall, a_status, a_troubled_status
from tests.unit.http.document import EMPTY, MANY, Document, each_status


@each_status
def test_it_is_well_formed(page: Page, status: Status) -> None:
    """Every element is closed, every id is unique, and all rows of a table have the same length."""
    document = Document(page.render(status))
    assert len(set(document.ids)) == len(document.ids)
    assert set(document.rows) <= {2, 4, 6, 8, 9}
    assert page.render(status).startswith("<!doctype html>\n<html lang=")


@each_status
def test_nothing_from_outside(page: Page, status: Status) -> None:
    """No address leads elsewhere, and no element has inline style or script: the policy forbids both."""
    for tag, name, value in Document(page.render(status)).attributes:
        assert name != "style"
        assert not name.startswith("on")
        if name in ("href", "src"):
            assert tag in ("a", "link")
            assert value in ("", "status.json", "metrics", "healthz", "readyz") or (
                tag == "link" and str(value).startswith("data:image/svg+xml,")
            )


def test_the_policy_fits(page: Page) -> None:
    """The policy allows the hashes of the one style and the one script, and nothing else."""
    text = page.render(a_status())
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy


@each_status
def test_it_is_small(page: Page, status: Status) -> None:
    """A page of 256 partitions in trouble is a few hundred kilobytes before compression."""
    assert len(page.render(status)) < 400_000


def test_what_is_refreshed_is_always_there(page: Page) -> None:
    """The sections that the script replaces are on every page."""

    def live(status: Status) -> list[str]:
        return re.findall(r'<\w+ id="([\w-]+)"[^>]* data-live', page.render(status))

    assert live(EMPTY) == live(MANY) == live(a_troubled_status())
    assert {"top", "state", "attention", "numbers", "charts", "topics", "routes", "failures"} <= set(live(EMPTY))
    assert {"owned", "partitions", "member", "totals"} <= set(live(EMPTY))


EVIL = "<script>alert(1)</script>\"'&amp;<b>{{7*7}}</b>-->]]>"


def poisoned(value: Any, name: str = "") -> Any:
    """Replace every text in a status by one that would break out of its element or attribute."""
    if isinstance(value, str):
        return EVIL if name not in ("state", "kind") else value
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    if isinstance(value, dict):
        return {key if name == "settings" else f"{EVIL}{key}": poisoned(each) for key, each in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {field: poisoned(getattr(value, field), field) for field in value.__struct_fields__}
        return type(value)(**fields)
    return value


def test_everything_is_escaped(page: Page) -> None:
    """Topics, routes, groups and sentences appear as text, never as an element, attribute or script."""
    troubled = msgspec.structs.replace(a_troubled_status(), stall=a_stall())
    clean, text = Document(page.render(troubled)), page.render(poisoned(troubled))
    document = Document(text)
    assert set(document.elements) == set(clean.elements)
    assert text.count("<script>") == text.count("</script>") == 1
    assert "<b>{{7*7}}" not in text
    assert EVIL in document.text


def test_only_our_own_files_are_not_escaped() -> None:
    """The templates leave two things unescaped: their own style and their own script."""
    folder = Path(consumer.http.__file__).parent
    templates = "".join(each.read_text() for each in sorted(folder.rglob("*.html")))
    assert re.findall(r"\{\{ (\w+)\|safe \}\}", templates) == ["style", "script", "script"]
    assert templates.count("|safe") == 3
    assert "autoescape" not in templates


def test_a_member_of_the_consumer_protocol(page: Page) -> None:
    """The group names the epoch, and the partitions that are let go of."""
    status = a_status()
    membership = MembershipStatus("consumer", 12, 1, status.at - 3, ["t-4"])
    text = page.render(
        msgspec.structs.replace(status, group=msgspec.structs.replace(status.group, membership=membership))
    )
    assert "epoch 12 (1 behind its group)" in text
    assert "Letting go of t-4" in text
    assert "Letting go" not in page.render(status)


def test_replicas_can_be_distinguished(page: Page) -> None:
    """Title and header name the host and the process, and the group marks which member this is."""
    text = page.render(a_status())
    assert "<title>Running · worker-7 4211 · session-consumer</title>" in text
    shown = " ".join(Document(text).text.split())
    assert "session-consumer on worker-7 , process 4211 group session-consumer up 3 h 12 min" in shown
    assert "Member id session-consumer-9d1f-4e0b" in shown
    assert "session-consumer-9d1f-4e0b this one session-consumer /10.0.3.7 4" in shown
    assert "Stable, 2 members, asked 12 s ago" in shown


def test_settings_follow_the_status(page: Page) -> None:
    """The settings on the page are those of the status, also after a page with others."""
    other = a_status(settings=plain_settings(Settings(kafka=Kafka(group_id="another-group"))))
    assert "another-group" not in page.render(a_status())
    assert "another-group" in page.render(other)
    assert "another-group" not in page.render(a_status())
