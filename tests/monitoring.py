"""Prometheus' programs: promtool, and a server for one test. Debian's package ``prometheus`` has both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import yaml

from tests.cluster import eventually
from tests.process import Running

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
RULES = ROOT / "deploy/prometheus/rules/session-consumer.yml"
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "deploy/grafana/dashboards/session-consumer.json").read_text(encoding="utf-8")
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, str] = {
    label: expression
    for variable in DASHBOARD["templating"]["list"]
    if variable["type"] == "query"
    for expression, label in re.findall(r"^label_values\((.+), (\w+)\)$", variable["query"]["query"])
}
"""What the dashboard asks for the values of its variables, by the label that has them."""


def program(name: str) -> str:
    """Return the path of a program; without it the test is skipped, and fails where CI is set."""
    found = shutil.which(name)
    if found is not None:
        return found
    missing = f"{name} is not installed; Debian's package prometheus has it"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def promtool(*arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run promtool to its end; return its exit code and its output."""
    ended = subprocess.run(
        [program("promtool"), *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120
    )
    return ended.returncode, ended.stdout + ended.stderr


def rules(path: Path = RULES) -> list[dict[str, Any]]:
    """Return every rule of the rule file, in order."""
    return [rule for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


class RunningPrometheus(Running):
    """A Prometheus with the shipped configuration that scrapes and evaluates each second, with alerts that fire at
    once.

    It starts when entered, with its own storage, and is killed when left. ``shorter`` replaces texts of the rules, such
    as windows that are too long for a test.
    """

    def __init__(self, folder: Path, target: str, shorter: Mapping[str, str] = {}) -> None:
        self._folder = folder / "prometheus"
        self._target = target.removeprefix("http://")
        self._shorter = {r"(?<=^        for: )\w+$": "1s"} | {re.escape(long): short for long, short in shorter.items()}
        self._lines: list[str] = []
        self._url: asyncio.Future[str] | None = None

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        self._process = await asyncio.create_subprocess_exec(
            program("prometheus"),
            f"--config.file={self._write_config()}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._url = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())
        return self

    def _write_config(self) -> Path:
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": [self._target]}]
        folder = self._folder / "rules"
        folder.mkdir()
        for file in sorted(CONFIG.parent.glob(config["rule_files"][0])):
            quick = file.read_text(encoding="utf-8")
            for long, short in self._shorter.items():
                quick, replaced = re.subn(long, short, quick, flags=re.MULTILINE)
                assert replaced, long
            (folder / file.name).write_text(quick, encoding="utf-8")
        path = self._folder / CONFIG.name
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        assert self._url is not None
        async for line in self._process.stderr:
            self._lines.append(line.decode().rstrip())
            found = re.search(r"Listening on\W.*\baddress=(127\.0\.0\.1:\d+)", self._lines[-1])
            if found and not self._url.done():
                self._url.set_result(f"http://{found[1]}")
        if not self._url.done():
            self._url.set_exception(AssertionError("\n".join(["Prometheus ended:", *self._lines])))

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its HTTP API."""
        assert self._url is not None
        url = await asyncio.wait_for(asyncio.shield(self._url), 30)
        async with aiohttp.ClientSession() as client, client.get(f"{url}/api/v1/{path}", params=parameters) as answer:
            if answer.status == 503:  # it has only just begun
                return {"result": []}
            body = await answer.json()
        assert body["status"] == "success", body
        return body["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series that an expression has now."""
        found = (await self.get("query", query=expression))["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    async def settles(self, expression: str, label: str, expected: dict[str, float]) -> None:
        """Wait until an expression has exactly these values, by one of its labels."""
        found: dict[str, float] = {}

        async def equal() -> bool:
            nonlocal found
            found = {labels.get(label, ""): value for labels, value in await self.query(expression)}
            return found == expected

        with contextlib.suppress(AssertionError):
            await eventually(equal, 60)
        assert found == expected
