"""Redrive of dead letters and replay: the daemon's engine on a source that ends, at a limited rate."""
