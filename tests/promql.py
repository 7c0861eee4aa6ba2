"""A small reader of PromQL: which series and labels an expression uses, and whether they exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from consumer.metrics.definitions import METRICS, PREFIX

TARGET = {"job", "instance"}
"""What Prometheus adds to everything that it scrapes."""
SUFFIXES: dict[str, dict[str, set[str]]] = {"histogram": {"_bucket": {"le"}, "_sum": set(), "_count": set()}}
EXPORTED = {
    PREFIX + metric.name + suffix: {*metric.labels, *more, *TARGET}
    for metric in METRICS
    for suffix, more in SUFFIXES.get(metric.kind, {"": set()}).items()
}
"""Every series that a scrape may hold, with its labels."""
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\b\s*(?:\(([^)]*)\))?")
SELECTOR = re.compile(r"(?<![\w:])([a-zA-Z_:][\w:]*)(?![\w:])\s*(?:\{([^}]*)\}|(?!\s*\())")
OPERATORS = {"and", "or", "unless", "bool", "offset"}


def series_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each selected series with the labels of its matchers."""
    plain = re.sub(r"\"[^\"]*\"|\[[^]]*\]", "", expression)
    for name, matchers in SELECTOR.findall(GROUPING.sub(" ", plain)):
        if name not in OPERATORS:
            yield name, set(re.findall(r"\w+(?=\s*[=!])", matchers))


def grouped_by(expression: str) -> set[str]:
    """Yield every label in a grouping or a join."""
    return set(re.findall(r"\w+", " ".join(GROUPING.findall(expression))))


def filled_in(expression: str) -> str:
    """Return a dashboard's expression as Grafana sends it with all values chosen."""
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "1m"))


def known_series(rules: Sequence[dict[str, Any]]) -> dict[str, set[str]]:
    """Return every series that rules and dashboards may use, with its labels."""
    known = EXPORTED | {"up": TARGET}
    for rule in rules:
        if "record" in rule:
            known[rule["record"]] = grouped_by(rule["expr"])
    alerts = [rule for rule in rules if "alert" in rule]
    of_alerts = {"alertname", "alertstate", *(label for rule in alerts for label in rule["labels"])}
    return known | {"ALERTS": of_alerts.union(*(grouped_by(rule["expr"]) for rule in alerts))}


def unknown(expression: str, known: dict[str, set[str]]) -> Iterator[str]:
    """Yield the series and labels of an expression that do not exist."""
    asked = list(series_of(expression))
    for name, labels in asked:
        if name not in known:
            yield name
        elif extra := labels - known[name]:
            yield f"{name} by {sorted(extra)}"
    yield from sorted(grouped_by(expression) - set().union(*(known.get(name, set()) for name, _ in asked)))
