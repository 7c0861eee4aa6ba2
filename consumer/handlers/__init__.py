"""Shipped handlers. A user's handler needs nothing from this folder."""
