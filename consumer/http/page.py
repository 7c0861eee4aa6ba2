"""The status page: a Status rendered as HTML, with an inline style and an inline script. Rendering is pure."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

import jinja2

from consumer.dead_letters.cause import REASONS
from consumer.http import wording
from consumer.http.chart import HEIGHT, WIDTH
from consumer.http.status import Status
from consumer.http.view import make_view

OLD_END_SECONDS = 15.0
"""Age above which the page shows how old a lag is: the partition's leader does not answer."""


class Page:
    """Renders statuses as HTML; made when the server starts, as long-lived as the server."""

    def __init__(self, template: jinja2.Template, style: str, script: str) -> None:
        self._template = template
        self._style = style
        self._script = script

    @property
    def policy(self) -> str:
        """The Content-Security-Policy, which allows this style and this script only."""
        return (
            f"default-src 'none'; script-src {_digest(self._script)}; style-src {_digest(self._style)}; img-src data:;"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def render(self, status: Status) -> str:
        """Return the HTML document."""
        view = make_view(status)
        return self._template.render(status=status, view=view, style=self._style, script=self._script)


def load_page() -> Page:
    """Load the template, the style and the script from this module's folder."""
    folder = files("consumer.http")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        each.__name__: each
        for each in (
            wording.number,
            wording.rate,
            wording.short,
            wording.size,
            wording.span,
            wording.wait,
            wording.clock,
            wording.day,
            wording.moment,
            wording.setting,
            wording.places,
            wording.sentence,
        )
    }
    environment.globals |= {
        "WIDTH": WIDTH,
        "HEIGHT": HEIGHT,
        "OLD_END_SECONDS": OLD_END_SECONDS,
        "LETTER_REASONS": REASONS,
    }
    html, style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return Page(environment.from_string(html), style, script)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
