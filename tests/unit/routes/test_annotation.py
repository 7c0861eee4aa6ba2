"""The annotation of a handler's first parameter against the type of the events."""

from __future__ import annotations

import pytest

from tests.unit.routes.modules import WHERE, Write, load, load_reference, refusal

NAMES = """
import functools
from collections.abc import Sequence
from typing import Annotated, Any, List, NewType, Optional, Protocol, TypedDict, TypeVar, Union
import msgspec
from consumer import Record
from schemas.session import Session
T = TypeVar("T", bound=msgspec.Struct)
Bulk = list[Session]
Renamed = NewType("Renamed", Session)
class Other(msgspec.Struct): pass
class Narrower(Session): pass
class Table(TypedDict): pass
class HasDuration(Protocol):
    duration: float | None
RenamedOther = NewType("RenamedOther", Other)
"""
ACCEPTED = [
    "",
    ": Any",
    ": bytes",
    ": object",
    ": Session",
    ": msgspec.Struct",
    ": Session | None",
    ": Optional[Session]",
    ": Union[Other, Session]",
    ": Annotated[Session, 1]",
    ": Renamed",
    ": HasDuration",
    ": T",
    ": 'NotThere'",
    ": 'not.there[0]'",
    ": 'not a type'",
]
ACCEPTED_LISTS = [
    ": list[Session]",
    ": list[bytes]",
    ": List[Session]",
    ": List",
    ": list[Session | None]",
    ": list[Any]",
    ": list[T]",
    ": list['NotThere']",
    ": 'list[NotThere]'",
    ": Bulk",
    ": Annotated[list[Session], 1]",
]
REFUSED = [
    ": dict",
    ": dict[str, Any]",
    ": str",
    ": None",
    ": Record",
    ": Other",
    ": Other | None",
    ": Narrower",
    ": Table",
    ": RenamedOther",
    ": 'Other'",
    ": list",
    ": list[Other]",
    ": list[dict[str, Any]]",
    ": list[list[Session]]",
    ": list[Session] | None",
    ": Sequence[Session]",
]
HEADS = ["", "from __future__ import annotations\n"]


@pytest.mark.parametrize("head", HEADS, ids=["types", "texts"])
@pytest.mark.parametrize("annotation", ACCEPTED)
def test_annotations_that_an_event_fits(module: Write, annotation: str, head: str) -> None:
    """The type of the events, its bases, unions with it, and annotations that say nothing are accepted."""
    module(f"{head}{NAMES}def f(event{annotation}): pass\n")
    assert not load("f").takes_batches


@pytest.mark.parametrize("head", HEADS, ids=["types", "texts"])
@pytest.mark.parametrize("annotation", ACCEPTED_LISTS)
def test_annotations_that_ask_for_batches(module: Write, annotation: str, head: str) -> None:
    """A list of what an event fits asks for batches, also under another name."""
    module(f"{head}{NAMES}def f(events{annotation}): pass\n")
    assert load("f").takes_batches


@pytest.mark.parametrize("head", HEADS, ids=["types", "texts"])
@pytest.mark.parametrize("annotation", REFUSED)
def test_annotations_that_no_event_fits(module: Write, annotation: str, head: str) -> None:
    """An annotation of another type is an error that names the route, the annotation and the type of the events."""
    module(f"{head}{NAMES}def f(event{annotation}): pass\n")
    said = refusal("f")
    assert said.startswith(f"{WHERE}.handler: mine:f: its first parameter is annotated ")
    assert "but the events of topic 'sessions' are schemas.session.Session; annotate it Session" in said
    bare = annotation.removeprefix(": ").strip("'")
    assert bare.partition("[")[0].split(" |")[0] in said


SHAPES = {
    "async": "async def f(event: Other): pass\n",
    "with a record": "def f(event: Other, record: Record): pass\n",
    "positional": "def f(*both: Other): pass\n",
    "method": "class Sink:\n    def store(self, event: Other): pass\nf = Sink().store\n",
    "class": "class f:\n    def __init__(self): pass\n    async def __call__(self, event: Other): pass\n",
    "instance": "class Sink:\n    def __call__(self, event: Other): pass\nf = Sink()\n",
    "partial": "def store(sink, event: Other): pass\nf = functools.partial(store, 1)\n",
    "wrapped": "def store(event: Other): pass\n@functools.wraps(store)\ndef f(*given): pass\n",
    "static": "class Sink:\n    @staticmethod\n    def store(event: Other): pass\nf = Sink.store\n",
}


@pytest.mark.parametrize("head", HEADS, ids=["types", "texts"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_callable_is_checked(module: Write, shape: str, head: str) -> None:
    """The annotation is found on functions, methods, classes, instances, partials and wrappers."""
    module(f"{head}{NAMES}{SHAPES[shape]}")
    assert "its first parameter is annotated mine.Other" in refusal("f")


def test_a_callable_without_a_signature() -> None:
    """Builtins without a signature have no annotation to check."""
    assert not load_reference("builtins:vars").takes_batches
