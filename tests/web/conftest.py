"""A real Chromium without a window, for the tests of the status page."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from consumer.http.server import HttpServer
from consumer.http.status import Status
from consumer.settings.sections import Http
from tests.fakes.observed import FakeMetrics, FakeObserved, FakeStatus
from tests.statuses import a_status


def chromium() -> str | None:
    """Return the path of Chromium, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """Chromium from the path; without it a test is skipped, or fails where CI is set."""
    executable = chromium()
    if executable is None:
        why = "no chromium in the path; on Debian: apt-get install --no-install-recommends chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    expect.set_options(timeout=30_000)  # a bound, for busy machines; what is waited for comes within seconds
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable)
        yield browser
        await browser.close()


class Served:
    """The daemon's own server on a free port, with a status that a test sets."""

    def __init__(self) -> None:
        self.status: Status = a_status()
        self.server = self._on(0)

    def _on(self, port: int) -> HttpServer:
        return HttpServer(Http(port=port), FakeObserved(), FakeMetrics(), FakeStatus(lambda: self.status))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/"

    async def come_back(self) -> None:
        """Serve again on the same port, as a daemon that was restarted."""
        self.server = self._on(self.server.port)
        await self.server.__aenter__()


@pytest_asyncio.fixture(loop_scope="package")
async def served() -> AsyncIterator[Served]:
    served = Served()
    await served.server.__aenter__()
    yield served
    await served.server.__aexit__()


NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (each) => window.violations.push(each.violatedDirective));
"""


class Opened:
    """A page in the browser, and its errors."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda each: self.errors.append(each.text) if each.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))

    async def problems(self) -> list[str]:
        """Return errors of the console and of the script, and violations of the policy."""
        return self.errors + list(await self.page.evaluate("() => window.violations"))


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Browser, served: Served) -> Open:
    @asynccontextmanager
    async def open_page(
        status: Status | None = None,
        *,
        scheme: Literal["light", "dark"] = "light",
        width: int = 1280,
        script: bool = True,
        url: str = "",
        clock: bool = False,
    ) -> AsyncIterator[Opened]:
        served.status = status or served.status
        context = await browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 844}, java_script_enabled=script
        )
        await context.add_init_script(NOTE_VIOLATIONS)
        try:
            found = Opened(await context.new_page())
            if clock:
                await found.page.clock.install()
            await found.page.goto(url or served.url)
            yield found
        finally:
            await context.close()

    return open_page
