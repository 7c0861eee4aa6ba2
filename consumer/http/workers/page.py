"""The page of all workers: a WorkersStatus rendered as HTML, in the style and with the script of the status page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import jinja2

from consumer.http.page import make_environment, policy_of, read_part
from consumer.http.workers.status import WorkersStatus
from consumer.settings.sections import address_of

Number = TypeVar("Number", int, float)


class WorkersPage:
    """Renders the page; made when the server starts, as long-lived as the server."""

    def __init__(self, template: jinja2.Template, style: str, script: str) -> None:
        self._template = template
        self._style = style
        self._script = script

    @property
    def policy(self) -> str:
        """The Content-Security-Policy, which allows this style and this script only."""
        return policy_of(self._script, self._style)

    def render(self, status: WorkersStatus, host: str) -> str:
        """Return the HTML document, with links to the pages of the workers at a host."""
        workers = status.workers
        return self._template.render(
            status=status,
            links={
                each.worker.number: f"http://{address_of(host, each.worker.port)}/"
                for each in workers
                if each.worker.port is not None
            },
            serving=sum(each.worker.serving for each in workers),
            rate=_total(each.records_per_second for each in workers),
            lag_records=_total(each.lag_records for each in workers),
            lag_seconds=max((each.lag_seconds for each in workers if each.lag_seconds is not None), default=None),
            partitions=_total(each.partitions for each in workers),
            dead_letters=_total(each.dead_letters for each in workers),
            restarts=sum(each.worker.restarts for each in workers),
            style=self._style,
            script=self._script,
        )


def load_workers_page() -> WorkersPage:
    """Load the template, and the style and script of the status page."""
    template = make_environment().get_template("workers/page.html")
    return WorkersPage(template, read_part("page.css"), read_part("page.js"))


def _total(values: Iterable[Number | None]) -> Number | None:
    """Return the sum of the values that are known; None without any."""
    known = [each for each in values if each is not None]
    return sum(known) if known else None
