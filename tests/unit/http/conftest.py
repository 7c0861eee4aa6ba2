"""Fixtures of the tests of the HTTP server."""

from __future__ import annotations

import pytest

from consumer.http.page import Page, load_page


@pytest.fixture(scope="module")
def page() -> Page:
    return load_page()
