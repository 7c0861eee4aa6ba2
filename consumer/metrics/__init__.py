"""Prometheus metrics; the only folder that imports prometheus_client."""
