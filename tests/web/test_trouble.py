"""The status page in trouble, in a real browser: times that count, ages in an outage, and many partitions."""

from __future__ import annotations

import re

import msgspec
import pytest
from playwright.async_api import expect

from tests.statuses import AT, a_partition, a_status
from tests.web.conftest import Open, Served
from tests.web.states import STATES, many_partitions

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.xdist_group("chromium")]


@pytest.mark.parametrize("name", STATES)
async def test_the_first_screen_of_a_phone_says_what_to_do(opened: Open, name: str) -> None:
    """In every state the word, what is the case and what to do are on a phone's first screen."""
    async with opened(STATES[name](), width=390) as found:
        for part in await found.page.locator("#state > *:not(.command):not(.more)").all():
            await expect(part).to_be_in_viewport(ratio=1)
        assert await found.page.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert await found.problems() == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", STATES)
async def test_nothing_scrolls_within_the_page(opened: Open, name: str, width: int) -> None:
    """No part of the page has a scroll bar: what is there is seen by scrolling the page."""
    inner = """() => [...document.querySelectorAll("main *")]
      .filter((each) => each.checkVisibility() && getComputedStyle(each).overflowY.match(/auto|scroll/)).length"""
    async with opened(STATES[name](), width=width) as found:
        assert await found.page.evaluate(inner) == 0


async def test_the_countdown_counts(opened: Open, served: Served) -> None:
    """The time until exit 70 counts down between refreshes, and follows the daemon at the next one."""
    async with opened(STATES["stall"](), clock=True) as found:
        left = found.page.locator("#state [data-down]")
        await expect(left).to_have_text("9 min 45 s")
        await found.page.clock.run_for(1000)
        await expect(left).to_have_text("9 min 44 s")
        served.status = msgspec.structs.replace(STATES["stall"](), at=AT + 500.0)
        await found.page.clock.run_for(1000)
        await expect(left).to_have_text("1 min 25 s")


async def test_times_are_right_without_the_script(opened: Open) -> None:
    """Without the script the countdown shows the time that was left when the page was made."""
    async with opened(STATES["stall"](), script=False) as found:
        await expect(found.page.locator("#state [data-down]")).to_have_text("9 min 45 s")


async def test_times_stop_when_the_daemon_does_not_answer(opened: Open, served: Served) -> None:
    """A page whose daemon is gone counts nothing on: it shows its state at that time."""
    async with opened(STATES["stall"](), clock=True) as found:
        await served.server.__aexit__()
        await found.page.clock.run_for(2000)
        await expect(found.page.locator("#notice")).to_contain_text("The daemon has not answered since")
        left = await found.page.locator("#state [data-down]").inner_text()
        await found.page.clock.run_for(5000)
        await expect(found.page.locator("#state [data-down]")).to_have_text(left)
        await served.come_back()


async def test_an_outage_shows_old_numbers_as_old(opened: Open) -> None:
    """Without brokers lag and age say how old they are and look old, and the silence counts up."""
    async with opened(STATES["brokers-away"](), clock=True) as found:
        page = found.page
        await expect(page.get_by_role("heading", name="No broker answers")).to_be_visible()
        await expect(page.locator("#state")).to_contain_text("kafka-1.internal:9092, kafka-2.internal:9092")
        await expect(page.locator("#state .what [data-up]")).to_have_text("42 s")
        await page.clock.run_for(1000)
        await expect(page.locator("#state .what [data-up]")).to_have_text("43 s")
        for name in ("#lag", "#behind"):
            tile = page.locator("#numbers > div").filter(has=page.locator(name))
            await expect(tile).to_contain_text(re.compile(r"measured 4\d s ago"))
            assert await page.locator(name).evaluate("(each) => getComputedStyle(each).fontStyle") == "italic"
        assert await page.locator("#in-flight").evaluate("(each) => getComputedStyle(each).fontStyle") == "normal"


async def test_the_filter(opened: Open, served: Served) -> None:
    """The filter finds partitions by name, state or wait, folded ones too, survives a refresh, and can be cleared."""
    async with opened(many_partitions()) as found:
        page, rows = found.page, found.page.locator("#partitions tbody tr:visible")
        await expect(rows).to_have_count(5)
        await page.get_by_role("searchbox", name="Filter").fill("audits-1")
        await expect(rows).to_have_count(11)
        await expect(page.locator("#filter-count")).to_have_text("11 of 256")
        served.status = msgspec.structs.replace(many_partitions(), records_per_second=77.0)
        await expect(page.locator("#rate")).to_have_text("77")
        await expect(rows).to_have_count(11)
        await page.get_by_role("searchbox", name="Filter").fill("events retry")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("session-events-17")
        await page.get_by_role("searchbox", name="Filter").fill("no such partition")
        await expect(page.locator("#filter-count")).to_have_text("0 of 256")
        await page.get_by_role("searchbox", name="Filter").fill("")
        await expect(rows).to_have_count(5)
        await expect(page.locator("#filter-count")).to_be_empty()
        assert await found.problems() == []


async def test_the_filter_keeps_what_was_unfolded(opened: Open) -> None:
    """After the filter is cleared, the folded partitions are as the reader left them."""
    async with opened(many_partitions()) as found:
        await found.page.locator("#calm-summary").click()
        await found.page.get_by_role("searchbox", name="Filter").fill("audits")
        await expect(found.page.locator("#partitions tbody tr:visible")).to_have_count(64)
        await found.page.get_by_role("searchbox", name="Filter").fill("")
        await expect(found.page.locator("#partitions tbody tr:visible")).to_have_count(256)


async def test_without_the_script_every_partition_is_there(opened: Open) -> None:
    """Without the script there is no filter, and all partitions can be unfolded."""
    async with opened(many_partitions(), script=False) as found:
        await expect(found.page.locator("#filter")).to_be_hidden()
        await found.page.locator("#calm-summary").click()
        await expect(found.page.locator("#partitions tbody tr:visible")).to_have_count(256)


async def test_few_partitions_need_no_filter(opened: Open) -> None:
    """A page with few partitions has no filter."""
    async with opened(a_status(partitions=[a_partition(number) for number in range(8)])) as found:
        await expect(found.page.get_by_text("every 2 s")).to_be_visible()
        await expect(found.page.locator("#filter")).to_be_hidden()
