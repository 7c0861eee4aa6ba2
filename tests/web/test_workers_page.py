"""The page of several workers in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.web.conftest import Open
from tests.web.test_page import FAINT
from tests.web.workers import ServedWorkers, some_workers

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.xdist_group("chromium")]


@pytest_asyncio.fixture(loop_scope="package")
async def workers() -> AsyncIterator[ServedWorkers]:
    async with ServedWorkers() as served:
        yield served


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("trouble", [True, False])
async def test_light_and_dark(opened: Open, workers: ServedWorkers, scheme: str, trouble: bool) -> None:
    """In either colour scheme all text has contrast, and neither policy nor console reports anything."""
    workers.status = some_workers(trouble=trouble)
    async with opened(url=workers.url, scheme=scheme) as found:
        assert await found.page.evaluate(FAINT) == []
        assert await found.problems() == []


@pytest.mark.parametrize("width", [390, 320])
async def test_on_a_phone(opened: Open, workers: ServedWorkers, width: int) -> None:
    """On a phone nothing overflows to the side."""
    async with opened(url=workers.url, width=width) as found:
        assert await found.page.evaluate("() => document.documentElement.scrollWidth") <= width
        cells = await found.page.locator(".cards :is(th[scope=row], td), .panel, .tiles > div").evaluate_all(
            "(all) => all.filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect().right)"
        )
        assert max(cells) <= width
        assert await found.problems() == []


async def test_it_follows_the_workers(opened: Open, workers: ServedWorkers) -> None:
    """The page shows by itself that a worker which ended is back, and links each worker that serves."""
    async with opened(url=workers.url) as found:
        await expect(found.page.get_by_role("heading", name="Restarting")).to_be_visible()
        await expect(found.page.get_by_role("link", name="Worker 3")).to_have_count(0)
        workers.status = some_workers(trouble=False)
        await expect(found.page.get_by_role("heading", name="Running")).to_be_visible()
        third = found.page.get_by_role("link", name="Worker 3")
        await expect(third).to_have_attribute("href", "http://localhost:8003/")
        assert await found.problems() == []
