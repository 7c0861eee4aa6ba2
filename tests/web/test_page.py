"""The status page in a real browser: light, dark, on a phone, without its script, refreshed, and stalled."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import expect

from consumer.http.status import BrokersStatus, GroupStatus, MemberStatus, ProcessStatus, StatsStatus, Status
from consumer.observe.event_counts import FieldCounts, ValueCount
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.statuses import (
    AT,
    a_failure,
    a_halt,
    a_hold,
    a_partition,
    a_stall,
    a_status,
    a_topic,
    a_troubled_status,
    some_history,
    some_stats,
)
from tests.statuses import a_route as a_route_status
from tests.web.conftest import Open, Served
from tests.web.states import STATES

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.xdist_group("chromium")]

MANY = a_status(
    partitions=[a_partition(number, lag_records=3 * number, state="reading") for number in range(256)],
    halts=[a_halt(*range(30))],
)
LONG = "a-topic-whose-name-is-as-long-as-kafka-lets-it-be-" * 4
WIDE = a_status(
    process=ProcessStatus(LONG, 1, "0.2.0", AT - 9, LONG, LONG, LONG),
    group=GroupStatus(LONG, "Stable", [MemberStatus(LONG, LONG, LONG, 1, me=True)], AT - 9),
    brokers=BrokersStatus([f"{LONG}:9092"], AT - 99, silent=True),
    topics=[a_topic(LONG, lag_records=10**9, lag_seconds=10.0**6, catch_up_seconds=10.0**7)],
    routes=[a_route_status(LONG, LONG, handled=10**9, waiting=256, calls=10**9, calls_failed=10**8, retries=10**9)],
    partitions=[a_partition(0, LONG, committed_offset=10**15, end_offset=10**15, lag_records=10**9)],
    halts=[a_halt(0, topic=LONG)],
    holds=[a_hold(0, route=LONG)],
    failures=[a_failure(error=f"ValueError ({'/a/very/long/path' * 12}.py:1)", topic=LONG, route=LONG)],
    stats=[
        StatsStatus(
            LONG,
            msgspec.structs.replace(
                some_stats().counts,
                events=10**12,
                fields=[
                    FieldCounts(LONG, [ValueCount(LONG[:100], 10**12), ValueCount("W" * 100, 7)], 10**11, exact=False)
                ],
            ),
        )
    ],
)

# Text whose contrast with what lies behind it is below what WCAG asks for (AA), as the browser computed both colours.
FAINT = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(`${element.textContent.trim()}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "status",
    [a_status(), a_troubled_status(), a_status(state="draining"), STATES["stall"](), STATES["brokers-away"]()],
    ids=["calm", "troubled", "draining", "stalled", "silent"],
)
async def test_light_and_dark(opened: Open, scheme: str, status: Status) -> None:
    """In either colour scheme all text has contrast, and neither policy nor console reports anything."""
    async with opened(status, scheme=scheme) as found:
        await found.page.locator("details").evaluate_all("(all) => all.forEach((each) => (each.open = true))")
        ground = await found.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
        assert await found.page.evaluate(FAINT) == []
        assert await found.problems() == []


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("status", [a_troubled_status(), MANY, WIDE], ids=["troubled", "many", "wide"])
async def test_on_a_phone(opened: Open, status: Status, width: int) -> None:
    """On a phone nothing overflows to the side and no box scrolls, whatever the names."""
    async with opened(status, width=width) as found:
        await found.page.locator("details").evaluate_all("(all) => all.forEach((each) => (each.open = true))")
        assert await found.page.evaluate("() => document.documentElement.scrollWidth") <= width
        sizes = await found.page.locator(
            ".state, .tiles > div, .chart, .panel, article, .hours, .values, .values :is(th, td)"
        ).evaluate_all(
            "(all) => all.map((each) => each.getBoundingClientRect()).map((each) => [each.left, each.right])"
        )
        assert all(0 <= left < right <= width for left, right in sizes)
        cells = await found.page.locator(".cards :is(th[scope=row], td), .command").evaluate_all(
            "(all) => all.filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect().right)"
        )
        assert max(cells) <= width
        assert await found.problems() == []


async def test_counts_are_refreshed(opened: Open, served: Served) -> None:
    """Counts are updated like the rest, and a table that was opened stays open; without counts there is no section."""
    async with opened(a_status(stats=[some_stats()])) as found:
        await found.page.locator("#stats-1-hours-summary").click()
        await expect(found.page.locator("#stats-1-hours tbody tr")).to_have_count(48)
        counts = msgspec.structs.replace(some_stats().counts, events=1_608_784)
        served.status = a_status(stats=[StatsStatus("counts", counts)])
        await expect(found.page.locator("#stats")).to_contain_text("1,608,784 events")
        assert await found.page.locator("#stats-1-hours").get_attribute("open") is not None
        served.status = a_status()
        await expect(found.page.locator("#stats")).to_be_empty()
        assert await found.problems() == []


async def test_the_phone_shows_what_matters_first(opened: Open) -> None:
    """On a phone the state, the halt and its command are on the first screen."""
    async with opened(a_status(halts=[a_halt(1)]), width=390) as found:
        await expect(found.page.get_by_role("heading", name="Partly halted")).to_be_in_viewport(ratio=1)
        await expect(found.page.locator(".command")).to_be_in_viewport(ratio=1)


async def test_without_the_script(opened: Open, served: Served) -> None:
    """Without the script everything is shown and can be unfolded, and a link reloads the page."""
    async with opened(a_status(), script=False) as found:
        await expect(found.page.get_by_role("heading", name="Running")).to_be_visible()
        await expect(found.page.get_by_role("heading", name="retry", exact=True)).to_be_hidden()
        await found.page.get_by_text("Settings").click()
        await expect(found.page.get_by_role("heading", name="retry", exact=True)).to_be_visible()
        served.status = a_status(partitions=[a_partition(0, state="reading", lag_records=4321)])
        await found.page.get_by_role("link", name="Reload").click()
        await expect(found.page.locator("#lag")).to_have_text("4,321")


async def test_the_script_needs_no_reload_link(opened: Open) -> None:
    """With the script there is no reload link, and the page shows its refresh interval."""
    async with opened() as found:
        await expect(found.page.get_by_role("link", name="Reload")).to_have_count(0)
        await expect(found.page.get_by_text("every 2 s")).to_be_visible()


async def test_the_chart_for_a_screen_reader(opened: Open) -> None:
    """A chart is an image with a sentence, and a named table with the same numbers and a header for each cell."""
    async with opened() as found:
        chart = found.page.get_by_role("img", name=re.compile("^Records a second over the last five minutes: now "))
        await expect(chart).to_have_count(1)
        await found.page.get_by_text("As a table").first.click()
        table = found.page.get_by_role("table", name=re.compile("^Records a second: mean of each 15 seconds"))
        await expect(table.get_by_role("columnheader")).to_have_text(["From (UTC)", "records a second"])
        assert await table.get_by_role("rowheader").count() == await table.get_by_role("cell").count() >= 20
        await expect(table.get_by_role("rowheader").first).to_have_text("07:33:15")


@pytest.mark.parametrize("width", [1280, 390])
async def test_what_a_screen_reader_finds(opened: Open, width: int) -> None:
    """Headings lead through the page, tables have names or headings, and the state is a word, on a phone too."""
    async with opened(a_troubled_status(), width=width) as found:
        for name in ("Partly halted", "Topics", "Routes", "Last failures", "Partitions", "This member", "Settings"):
            await expect(found.page.get_by_role("heading", name=name)).to_have_count(1)
        table = found.page.get_by_role("table", name="Partitions, the worst first")
        row = table.get_by_role("row", name=re.compile("^session-events-1 halted"))
        await expect(row.get_by_role("rowheader")).to_have_text("session-events-1")
        await expect(table.get_by_role("columnheader", name="Waits for")).to_have_count(1)
        await expect(found.page.get_by_role("searchbox", name="Filter")).to_have_count(1)


async def test_names_are_text(opened: Open) -> None:
    """A topic or a route named like a script is shown as text, and does nothing."""
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    status = a_status(
        partitions=[a_partition(0, name)], failures=[a_failure(route=name, topic=name)], halts=[a_halt(0, topic=name)]
    )
    async with opened(status) as found:
        await expect(found.page.get_by_text(name).first).to_be_visible()
        assert await found.page.locator("img").count() == 0
        assert await found.problems() == []


async def test_numbers_move(opened: Open, served: Served) -> None:
    """The page follows the daemon by itself: numbers, state, halts, title and the colour of the icon."""
    async with opened(a_status()) as found:
        sign = await found.page.locator("#icon").get_attribute("href")
        served.status = a_status(
            records_per_second=77.0,
            partitions=[a_partition(0, state="halted", lag_records=987_654)],
            halts=[a_halt(0)],
        )
        await expect(found.page.locator("#lag")).to_have_text("987,654")
        await expect(found.page.locator("#rate")).to_have_text("77")
        await expect(found.page.get_by_role("heading", name="Halted", exact=True)).to_be_visible()
        await expect(found.page.locator(".command")).to_be_visible()
        await expect(found.page).to_have_title("Halted · worker-7 4211 · session-consumer")
        assert await found.page.locator("#icon").get_attribute("href") != sign
        served.status = a_status()
        await expect(found.page.get_by_role("heading", name="Running")).to_be_visible()
        await expect(found.page.locator("#attention")).to_be_hidden()
        assert await found.problems() == []


async def test_a_refresh_keeps_what_the_reader_did(opened: Open, served: Served) -> None:
    """A refresh keeps what was unfolded, focused or selected."""
    async with opened(MANY) as found:
        page = found.page
        await page.get_by_text("As a table").first.click()
        await page.locator("#trouble-1-summary").click()
        await page.locator("#calm-summary").click()
        await page.locator("#calm-summary").focus()
        served.status = msgspec.structs.replace(
            MANY, at=AT + 2, records_per_second=1.5, history=some_history(at=AT + 2)
        )
        await expect(page.locator("#rate")).to_have_text("1.5")
        await expect(page.locator("#throughput-table table")).to_be_visible()
        await expect(page.locator("#attention li").last).to_be_visible()
        await expect(page.locator("#calm table")).to_be_visible()
        await expect(page.locator("#calm-summary")).to_be_focused()
        await page.locator(".command").first.click()
        selected = await page.evaluate("() => String(getSelection())")
        assert selected == MANY.halts[0].command
        served.status = a_status(records_per_second=2.5)
        await expect(page.locator("#rate")).to_have_text("2.5")
        assert await page.evaluate("() => String(getSelection())") == selected
        assert await found.problems() == []


async def test_a_hidden_tab_asks_nothing(opened: Open, served: Served) -> None:
    """A hidden tab sends no requests; when it is shown again it refreshes at once."""
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    async with opened(a_status(), clock=True) as found:
        asked: list[str] = []
        found.page.on("request", lambda request: asked.append(request.url))
        async with found.page.expect_response(served.url):
            await found.page.clock.run_for(2000)
        await found.page.evaluate(hide, True)
        asked.clear()
        await found.page.clock.run_for(60_000)
        assert asked == []
        served.status = a_status(records_per_second=3.5)
        await found.page.evaluate(hide, False)
        await expect(found.page.locator("#rate")).to_have_text("3.5")
        assert len(asked) == 1


async def test_the_daemon_is_gone(opened: Open, served: Served) -> None:
    """Without answers the page says so, since when, and pales; when the daemon is back it goes on."""
    async with opened(a_status()) as found:
        await expect(found.page.locator("#notice")).to_be_empty()
        await served.server.__aexit__()
        notice = found.page.get_by_role("status")
        await expect(notice).to_contain_text("The daemon has not answered since ")
        await expect(notice).to_be_in_viewport()
        await expect(found.page).to_have_title(re.compile("^No answer · Running"))
        assert float(await found.page.locator("main").evaluate("(main) => getComputedStyle(main).opacity")) < 0.7
        assert {"ERR_CONNECTION_REFUSED" in error for error in found.errors} == {True}
        served.status = a_status(records_per_second=4.5)
        await served.come_back()
        await expect(notice).to_be_empty()
        await expect(found.page.locator("#rate")).to_have_text("4.5")
        await expect(found.page).to_have_title("Running · worker-7 4211 · session-consumer")


async def test_a_restarted_daemon_reloads_the_page(opened: Open, served: Served) -> None:
    """A restarted daemon may have another version, so the page reloads as a whole, with its settings."""
    async with opened(a_status()) as found:
        await found.page.get_by_text("Settings").click()
        await expect(found.page.get_by_text("earliest")).to_be_visible()
        settings = served.status.settings | {"kafka.offset_reset": "latest"}
        process = msgspec.structs.replace(served.status.process, started_at=AT - 5)
        served.status = a_status(process=process, settings=settings)
        await expect(found.page.locator("#settings")).to_contain_text("latest")
        assert await found.problems() == []


async def test_stalled(opened: Open) -> None:
    """A stalled daemon shows that first, with the route, the record and the place."""
    async with opened(a_status(state="stalled", stall=a_stall(), since=AT - 75)) as found:
        await expect(found.page.get_by_role("heading", name="Stalled")).to_be_visible()
        state = found.page.locator("#state")
        await expect(state).to_contain_text("A call of route crm has not ended for 1 min 15 s: session-events-3 at")
        await expect(found.page.locator("#attention")).to_contain_text("upsert (/srv/handlers/crm.py:41)")


async def test_the_counts_are_true(cluster: Cluster, opened: Open, tmp_path: Path) -> None:
    """The page of a daemon on a real Kafka shows what was handled, skipped, dead-lettered and committed."""
    await cluster.create(partitions=2, dead_letters=1)
    await cluster.produce([*map(a_session, range(120)), None, b'{"timestamp":"+18045550100"}'], 0)
    await cluster.produce(map(a_session, range(80)), 1)
    async with cluster.run(routes=a_route("recording:Recorder", path=tmp_path / "handled")) as daemon:
        async with opened(url=f"{await daemon.url()}/") as found:
            page = found.page
            await expect(page.locator("#consumed")).to_have_text("202")
            await expect(page.locator("#lag")).to_have_text("0")
            await expect(page.get_by_role("heading", name="Running")).to_be_visible()
            routes = page.locator("#routes tbody tr")
            await expect(routes.nth(0)).to_contain_text("all recording:Recorder (path)")
            await expect(routes.nth(0).locator("td").nth(5)).to_have_text("200")
            await expect(routes.nth(1).locator("td").nth(6)).to_have_text("1")
            await expect(routes.nth(1)).to_contain_text("skipped 1")
            await expect(page.locator("#failures")).to_contain_text(
                f"dead letter undecodable route none {cluster.topic}-0"
            )
            rows = page.locator("#partitions tbody tr")
            await expect(rows.nth(0).locator("td").nth(5)).to_have_text("122")
            await expect(rows.nth(1).locator("td").nth(5)).to_have_text("80")
            await expect(
                page.get_by_role("img", name=re.compile("^Lag over the last five minutes: now 0"))
            ).to_be_visible()
            assert "+18045550100" not in await page.content()
            assert await found.problems() == []
        status = msgspec.json.decode((await daemon.get("/status.json"))[1], type=Status)
        assert [(each.committed_offset, each.state) for each in status.partitions] == [
            (122, "caught up"),
            (80, "caught up"),
        ]
        assert await daemon.stop() == 0


async def test_a_blocked_event_loop(cluster: Cluster, opened: Open, tmp_path: Path) -> None:
    """While a handler blocks the event loop the page still answers, and shows it."""
    await cluster.create()
    begun = tmp_path / "begun"
    await cluster.produce([a_session(0)])
    routes = a_route("recording:Blocking", path=begun, seconds=600)
    async with cluster.run("watchdog.stalled_seconds=1", routes=routes) as daemon:
        await eventually(begun.exists)
        async with opened(url=f"{await daemon.url()}/") as found:
            await expect(found.page.get_by_role("heading", name="Stalled")).to_be_visible(timeout=20_000)
            await expect(found.page.locator("#state")).to_contain_text("The event loop has been blocked by route all")
