"""Handlers that are shipped; a user's own need nothing from here."""
