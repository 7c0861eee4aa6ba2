"""Routes: matches on events and their handlers, imported, compiled and checked once at start."""
