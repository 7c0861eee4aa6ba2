"""``python -m tests.kubernetes`` writes the PrometheusRule of deploy/kubernetes from the rules of deploy/prometheus."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "deploy"
RULES = FOLDER / "kubernetes/monitoring/rules.yaml"
HEAD = """\
# Made from deploy/prometheus/rules by `python -m tests.kubernetes`; not edited by hand.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: session-consumer
spec:
"""


def prometheus_rule() -> str:
    """Return the rules as a resource of the Prometheus operator."""
    rules = (FOLDER / "prometheus/rules/session-consumer.yml").read_text(encoding="utf-8")
    lines = rules[rules.index("groups:") :].splitlines(keepends=True)
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in lines)


if __name__ == "__main__":
    RULES.write_text(prometheus_rule(), encoding="utf-8")
