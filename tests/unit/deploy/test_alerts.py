"""The alerts: each fires in its scenarios and in no other, and links to its runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring import CONFIG, ROOT, RULES, promtool, rules
from tests.promql import EXPORTED, known_series, series_of, unknown

SCENARIOS = sorted((ROOT / "tests/prometheus").glob("*.yml"))
ALERTS = [rule for rule in rules() if "alert" in rule]
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])


def scenario_of(alert: str) -> Path:
    """Return the scenario file of an alert: SessionConsumerNoPartitions has ``no_partitions.yml``."""
    words = re.findall("[A-Z][a-z]+", alert.removeprefix("SessionConsumer"))
    return ROOT / "tests/prometheus" / f"{'_'.join(words).lower()}.yml"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_an_alert_fires_when_it_should_and_only_then(scenario: Path) -> None:
    """Every scenario ends as stated: which alerts fired, when, and with which texts."""
    code, said = promtool("test", "rules", str(scenario))
    assert code == 0, said


@each_alert
def test_an_alert_has_scenarios(alert: dict[str, Any]) -> None:
    """Every alert has a scenario in which it fires, text included, and one in which it nearly does."""
    tests = yaml.safe_load(scenario_of(alert["alert"]).read_text(encoding="utf-8"))["tests"]
    assert any(each["alertname"] == alert["alert"] for test in tests for each in test.get("alert_rule_test", []))
    assert any(all(not each["exp_samples"] for each in test["promql_expr_test"]) for test in tests)


def test_every_scenario_is_of_an_alert() -> None:
    """Every scenario file belongs to an alert."""
    assert sorted(scenario_of(alert["alert"]) for alert in ALERTS) == SCENARIOS


def test_promtool_finds_no_fault() -> None:
    """promtool accepts the configuration and the rules that it names."""
    code, said = promtool("check", "config", str(CONFIG))
    assert code == 0, said
    assert f"{len(rules())} rules found" in said


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_series_that_exist(rule: dict[str, Any]) -> None:
    """Every series and label in a rule is exported, added by Prometheus, or recorded by another rule."""
    assert list(series_of(rule["expr"]))
    assert list(unknown(rule["expr"], known_series(rules()))) == []


def test_what_is_recorded_is_used() -> None:
    """Every recorded series is used by an alert."""
    asked = {name for alert in ALERTS for name, _ in series_of(alert["expr"])}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded
    assert recorded <= asked


@each_alert
def test_an_alert_leads_to_its_runbook(alert: dict[str, Any]) -> None:
    """Every alert has a severity, a summary and a description; its link is its heading in the runbook."""
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    assert alert["alert"].startswith("SessionConsumer")


@each_alert
def test_words_name_labels_that_the_alert_has(alert: dict[str, Any]) -> None:
    """Every label in an alert's texts is one that its expression keeps."""
    said = " ".join(alert["annotations"].values())
    labels = re.findall(r"\$labels\.(\w+)", said)
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", alert["expr"])))) or {
        label for name, _ in series_of(alert["expr"]) for label in known_series(rules())[name]
    }
    assert set(labels) <= kept


def test_the_runbook_has_every_alert_in_order() -> None:
    """The runbook has one section for each alert, in the rules' order, and no other."""
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


def test_the_runbook_names_metrics_that_exist() -> None:
    """Every metric that the runbook names is exported."""
    assert set(re.findall(r"session_consumer_\w+", RUNBOOK)) <= set(EXPORTED)


def test_the_rule_file_is_the_one_that_is_tested() -> None:
    """Every scenario reads the rules that are shipped."""
    for scenario in SCENARIOS:
        (file,) = yaml.safe_load(scenario.read_text(encoding="utf-8"))["rule_files"]
        assert (scenario.parent / file).resolve() == RULES
