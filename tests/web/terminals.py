"""Pictures of the commands in a terminal for the documents: ``python -m tests.web.terminals [FOLDER]``.

Each command runs on a real local Kafka in a tmux of 100 columns. Chromium draws what the terminal shows at its end.
"""

from __future__ import annotations

import asyncio
import io
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import uuid4

import msgspec
from playwright.async_api import Browser, async_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from consumer.kafka.local.cluster import LocalKafka
from consumer.settings.sections import Kafka
from schemas.samples import sessions
from tests.cluster import Cluster, a_route, eventually
from tests.process import RunningConsumer
from tests.web.conftest import chromium

DOCS = Path(__file__).parent.parent.parent / "docs"
COLUMNS, ROWS = 100, 60
SECONDS = 180.0
BIN = Path(sys.executable).parent
HTML = """<style>body {{ margin: 0 }} pre {{ display: inline-block; padding: 12px 16px; margin: 0;
font: 14px/1.3 monospace; color: {foreground}; background: {background} }}</style><pre>{code}</pre>"""


async def tmux(*arguments: str) -> str:
    """Run a tmux command on a server that only this script uses."""
    command = ["tmux", "-L", "session-consumer-pictures", "-f", "/dev/null", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"tmux {arguments[0]} ended with {process.returncode}")
    return output.decode()


async def shown(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command in a terminal, and return what it shows at the end, with its colours."""
    name = uuid4().hex
    variables = [f"{key}={value}" for key, value in environment.items()]
    line = shlex.join(["env", *variables, str(BIN / "session-consumer"), *shlex.split(command)[1:]])
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    await tmux(
        "new-session",
        "-d",
        "-s",
        name,
        *size,
        "-c",
        str(folder),
        f"sleep 1; {line}",
        ";",
        "set",
        "remain-on-exit",
        "on",
    )

    async def ended() -> bool:
        return (await tmux("display-message", "-t", name, "-p", "#{pane_dead}")).strip() == "1"

    try:
        await eventually(ended, seconds=SECONDS)
        text = await tmux("capture-pane", "-t", name, "-e", "-p", "-S", "-")
    finally:
        await tmux("kill-session", "-t", name)
    kept = [each for each in text.splitlines() if "Pane is dead" not in each]
    return "\n".join([f"$ {command}", *kept]).rstrip()


async def draw(browser: Browser, text: str, path: Path) -> None:
    """Write a PNG of a terminal's text."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text), soft_wrap=True)
    page = await browser.new_page(viewport={"width": 1200, "height": 1000})
    await page.set_content(console.export_html(theme=MONOKAI, code_format=HTML, inline_styles=True))
    await page.locator("pre").screenshot(path=path)
    await page.close()


@asynccontextmanager
async def scene() -> AsyncIterator[Cluster]:
    """Give a topic with sessions of which a daemon has dead-lettered some."""
    async with LocalKafka() as kafka:
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster(kafka.bootstrap_servers, "sessions", Path(folder))
            cluster.topic = "session-events"
            cluster.kafka = Kafka(kafka.bootstrap_servers.split(","), topics=[cluster.topic], group_id="crm")
            await cluster.create(4, dead_letters=4)
            routes = a_route("consumer.handlers.log:Log", "log") + a_route("strict:strict", "crm").replace(
                "options = {  }\n", ""
            )
            (cluster.folder / "strict.py").write_text(STRICT)
            settings = SETTINGS.format(servers=kafka.bootstrap_servers, routes=routes, folder=folder)
            (cluster.folder / "settings.toml").write_text(settings)
            values = [msgspec.json.encode(each) for each in islice(sessions(7), 4000)]
            values[100:800:380] = [b"{"] * 2
            for partition in range(4):
                await cluster.produce(values[partition::4], partition)
            yield cluster


async def handle_all(cluster: Cluster) -> None:
    """Run a daemon until all is handled or dead-lettered."""

    async def caught_up() -> bool:
        return await cluster.lag() == 0

    async with RunningConsumer(cluster.folder / "settings.toml", ["log.format=json"]) as daemon:
        await daemon.said("partitions_assigned")
        await eventually(caught_up)
        await daemon.stop()


STRICT = """
from consumer import Reject
from schemas.session import Session


def strict(event: Session) -> None:
    if event.duration is not None and event.duration > 899.5:
        raise Reject("too long", code="too_long")
"""
SETTINGS = """
path = ["{folder}"]
[kafka]
bootstrap_servers = ["{servers}"]
topics = ["session-events"]
group_id = "crm"
[http]
port = 0
{routes}
"""


async def main(folder: Path) -> None:
    """Take all pictures."""
    executable = chromium()
    if executable is None:
        sys.exit("no chromium in the path; on Debian: apt-get install --no-install-recommends chromium")
    (folder / "terminal").mkdir(parents=True, exist_ok=True)
    environment = {"HOME": str(Path.home()), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    async with scene() as cluster, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable)
        begin = (datetime.now(UTC) - timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M")
        for name, command in {
            "check": "session-consumer check -c settings.toml",
            "demo": "session-consumer demo --no-stay",
            "dlq-list": "session-consumer dlq list -c settings.toml",
            "replay": f"session-consumer replay -c settings.toml --from {begin} --route crm --yes",
        }.items():
            if name == "dlq-list":
                await handle_all(cluster)
            text = await shown(command, cluster.folder, environment)
            await draw(browser, text, folder / "terminal" / f"{name}.png")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS))
