"""Redrive of dead letters: the daemon's engine on a source that ends, at a limited rate."""
