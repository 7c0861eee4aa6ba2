"""The HTTP port of the parent of several workers: their health, a page of all, and where Prometheus finds them."""
