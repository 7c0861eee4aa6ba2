"""Dead letters run again: the engine of the daemon, on a source that ends, at a limited rate."""
