"""Benchmark of this project and its peers: each contestant has its own process and group, on the same records."""
