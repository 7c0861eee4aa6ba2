"""The README's tables, made from the code; ``python -m tests.docs`` writes them into the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from consumer.metrics.definitions import METRICS
from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import Settings

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | {_default(name)} | {meaning} |" for name, meaning in MEANINGS.items()]
    return "\n".join(rows)


def _default(name: str) -> str:
    if name.startswith("routes."):
        return "" if name in ("routes.name", "routes.handler") else "`{}`"
    value: Any = Settings()
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{msgspec.json.encode(value).decode()}`"


def metrics_table() -> str:
    rows = ["| metric | type | labels | what it tells |", "|---|---|---|---|"]
    rows += [f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |" for metric in METRICS]
    return "\n".join(rows)


def write(readme: Path = README) -> None:
    """Replace both tables of the README by what the code says."""
    text = readme.read_text()
    for title, table in (("settings", settings_table()), ("metrics", metrics_table())):
        text = re.sub(rf"(<!-- {title}:[^\n]*-->\n)(?:\|[^\n]*\n)+", lambda found: found[1] + table + "\n", text)  # noqa: B023
    readme.write_text(text)


if __name__ == "__main__":
    write()
