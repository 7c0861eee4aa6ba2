"""Pictures of the status page for the documents: ``python -m tests.web.screenshots [FOLDER]``.

Each state of ``states.py`` is served by the daemon's own server and opened in a real Chromium: light, dark, and on a
phone.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, async_playwright

from consumer.http.status import Status
from tests.web.conftest import Served, chromium
from tests.web.states import STATES, counts
from tests.web.workers import ServedWorkers

DOCS = Path(__file__).parent.parent.parent / "docs"
LOOKS: dict[str, tuple[Literal["light", "dark"], int, int]] = {
    "light": ("light", 1280, 900),
    "dark": ("dark", 1280, 900),
    "phone": ("light", 390, 844),
}
"""Colour scheme, width and height."""
TALL = {
    "256-partitions": {"light": 1400, "dark": 1400, "phone": 2340},
    "status-page": {"light": 1340},
    "workers": {"light": 680, "dark": 680, "phone": 1240},
}
"""Heights of states whose point is further down."""
PARTS = {"counts": "#stats"}
"""Parts of the page that are the point of a state, as CSS selectors."""


async def take(browser: Browser, served: Served, status: Status, path: Path, look: str) -> None:
    """Write the upper part of a status page as a PNG."""
    served.status = status
    await shoot(browser, served.url, path, look)


async def shoot(browser: Browser, url: str, path: Path, look: str) -> None:
    """Write the upper part of a page as a PNG."""
    scheme, width, usual = LOOKS[look]
    state = path.stem.removesuffix(f"-{look}")
    height = TALL.get(state, {}).get(look, usual)
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
    page = await context.new_page()
    await page.goto(url)
    await (page.locator(PARTS[state]) if state in PARTS else page).screenshot(path=path)
    await context.close()


async def main(folder: Path) -> None:
    """Take all pictures."""
    executable = chromium()
    if executable is None:
        sys.exit("no chromium in the path; on Debian: apt-get install --no-install-recommends chromium")
    (folder / "status").mkdir(parents=True, exist_ok=True)
    served = Served()
    async with served.server, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable)
        for name, state in {**STATES, "counts": counts}.items():
            for look in LOOKS:
                await take(browser, served, state(), folder / "status" / f"{name}-{look}.png", look)
        await take(browser, served, STATES["running"](), folder / "status-page.png", "light")
        async with ServedWorkers() as workers:
            for look in LOOKS:
                await shoot(browser, workers.url, folder / "status" / f"workers-{look}.png", look)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS))
