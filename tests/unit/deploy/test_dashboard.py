"""The dashboard: its expressions parse and name existing series, and every metric is shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.metrics.definitions import METRICS, PREFIX
from tests.monitoring import DASHBOARD, PANELS, VARIABLES, promtool, rules
from tests.promql import filled_in, known_series, series_of, unknown

ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
NOT_SHOWN = {"committed_offset": "a graph of offsets tells nothing that lag does not; an alert watches them"}

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def expressions() -> Iterator[str]:
    """Return every expression that Grafana sends."""
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from VARIABLES.values()


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_it_reads_series_that_exist(expression: str) -> None:
    """Every series and label in an expression is exported by the daemon or made by the rules."""
    assert list(series_of(expression))
    assert list(unknown(expression, known_series(rules()))) == []


def test_it_shows_every_metric() -> None:
    """Every exported metric is shown, or listed here with the reason why not."""
    asked = {name for expression in expressions() for name, _ in series_of(expression)}
    shown = {metric.name for metric in METRICS if any(name.startswith(PREFIX + metric.name) for name in asked)}
    assert {metric.name for metric in METRICS} - shown == set(NOT_SHOWN)


def test_prometheus_can_read_it(tmp_path: Path) -> None:
    """Prometheus parses every expression with its variables filled in."""
    found = [{"record": f"asked:{number}", "expr": filled_in(each)} for number, each in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": found}]}), encoding="utf-8")
    code, said = promtool("check", "rules", str(file))
    assert code == 0, said
    assert f"{len(found)} rules found" in said


def test_each_variable_is_read() -> None:
    """Every variable with a query is one that the tests read, and is named after its label."""
    asked = [variable["name"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert list(VARIABLES) == asked


@each_panel
def test_it_filters_by_its_variables(panel: dict[str, Any]) -> None:
    """Every series is filtered by the chosen jobs, instances and, where it has one, topics."""
    for target in panel["targets"]:
        for name, labels in series_of(target["expr"]):
            if name.startswith(PREFIX):
                assert known_series(rules())[name] & {"job", "instance", "topic"} <= labels, target["expr"]


@each_panel
def test_a_panel_is_complete(panel: dict[str, Any]) -> None:
    """Every panel has a title, a description, a unit and the chosen data source."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_do_not_overlap() -> None:
    """No two panels share an id or a place, and none is wider than the page."""
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    places = [panel["gridPos"] for panel in everything]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_its_rows_are_questions() -> None:
    """The rows answer in order: whether it is alive, how far behind it is, and where its time goes."""
    assert [row["title"] for row in ROWS][:3] == [
        "Is it alive and consuming?",
        "How far behind is it?",
        "Where does a second go?",
    ]
