"""Examples of events: the smallest document that decodes."""

from __future__ import annotations

import msgspec
import pytest

from schemas.example import NoExampleError, example_document
from schemas.types import event_type


class Tree(msgspec.Struct):
    branches: list[Tree]
    parent: Tree | None


class Endless(msgspec.Struct):
    next: Endless


def test_a_type_that_holds_itself() -> None:
    """A list that may be empty is, so a type that holds itself in one has an example."""
    assert example_document(event_type(Tree), "json") == {"branches": [], "parent": None}


def test_a_type_without_a_smallest_document() -> None:
    """A type of which no document exists is refused."""
    with pytest.raises(NoExampleError, match="without end"):
        example_document(event_type(Endless), "json")
