"""The status page: a Status rendered as HTML, with an inline style and an inline script. Rendering is pure."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

import jinja2

from consumer.dead_letters.cause import REASONS
from consumer.http import wording
from consumer.http.chart import HEIGHT, WIDTH
from consumer.http.progress import catch_up
from consumer.http.status import Status
from consumer.http.view import make_view, setting_groups


class Page:
    """Renders statuses as HTML; made when the server starts, as long-lived as the server.

    The settings are rendered again only when they differ, because they are the largest part and never change.
    """

    def __init__(self, template: jinja2.Template, settings: jinja2.Template, style: str, script: str) -> None:
        self._template = template
        self._settings = settings
        self._style = style
        self._script = script
        self._rendered: tuple[dict[str, Any], object] = ({}, "")

    @property
    def policy(self) -> str:
        """The Content-Security-Policy, which allows this style and this script only."""
        return policy_of(self._script, self._style)

    def render(self, status: Status) -> str:
        """Return the HTML document."""
        settings = self._settings_of(status.settings)
        view = make_view(status)
        return self._template.render(
            status=status, view=view, settings=settings, style=self._style, script=self._script
        )

    def _settings_of(self, settings: dict[str, Any]) -> object:
        """Return the settings as HTML that is not escaped again."""
        if self._rendered[0] != settings:
            module: Any = self._settings.module
            self._rendered = (settings, module.settings(setting_groups(settings)))
        return self._rendered[1]


def load_page() -> Page:
    """Load the templates, the style and the script from this module's folder."""
    environment = make_environment()
    html, settings = environment.get_template("page.html"), environment.get_template("page.settings.html")
    return Page(html, settings, read_part("page.css"), read_part("page.js"))


def make_environment() -> jinja2.Environment:
    """Make the environment of the pages' templates: they escape all text, and have the words of ``wording``."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        each.__name__: each
        for each in (
            wording.number,
            wording.rate,
            wording.short,
            wording.size,
            wording.span,
            wording.duration,
            wording.percent,
            wording.clock,
            wording.day,
            wording.when,
            wording.moment,
            wording.setting,
            catch_up,
        )
    }
    environment.globals |= {"WIDTH": WIDTH, "HEIGHT": HEIGHT, "LETTER_REASONS": REASONS}
    return environment


def read_part(name: str) -> str:
    """Read a template, a style or a script, by its name in this module's folder."""
    return files("consumer.http").joinpath(name).read_text("utf-8")


def policy_of(script: str, style: str) -> str:
    """Return a Content-Security-Policy that allows one script and one style only."""
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
