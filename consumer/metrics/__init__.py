"""Everything that touches Prometheus: prometheus_client is imported here and nowhere else."""
