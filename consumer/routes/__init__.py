"""A route is a match on events plus a handler: compiled, imported and checked once at start."""
