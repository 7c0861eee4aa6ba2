"""Types of events: which are accepted, and what is said about others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from schemas.formats import make_reader
from schemas.session import Session
from schemas.types import BYTES, event_type


class Order(msgspec.Struct):
    order_id: int


class Placed(Order, tag=True):
    pass


class Paid(Order, tag=True):
    amount: float = 0.0


class Untagged(msgspec.Struct):
    a: int


class Row(msgspec.Struct, array_like=True):
    a: int


@dataclass
class Data:
    order_id: int


@attrs.define
class Attrs:
    order_id: int


class Table(TypedDict):
    order_id: int


Number = TypeVar("Number")
ASKS = {"both_spellings": True}
"""What a Struct has that asks for both spellings."""


class Up(msgspec.Struct, Generic[Number], tag=True):
    to_floor: Number


class Down(msgspec.Struct, Generic[Number], tag=True):
    to_floor: Number


class Floor(msgspec.Struct, Generic[Number], forbid_unknown_fields=True, kw_only=True):
    both_spellings: ClassVar[bool] = True
    to_floor: Number


class Pair(NamedTuple):
    a: int


@pytest.mark.parametrize("kind", [Order, Data, Attrs, Table])
def test_types_with_fields(kind: Any) -> None:
    """Each kind of class has its fields."""
    found = event_type(kind)
    (member,) = found.members
    assert (found.name, member.fields, member.by_key) == (kind.__name__, {"order_id": int}, kind is Table)


@pytest.mark.parametrize("kind", [dict, dict[str, Any]])
def test_dicts_have_any_field(kind: Any) -> None:
    """A dict may have any field."""
    (member,) = event_type(kind).members
    assert (member.fields, member.by_key) == (None, True)


def test_a_union_of_tagged_structs() -> None:
    """A union has its members and the field of their tags."""
    found = event_type(Placed | Paid)
    assert (found.name, found.tag_field) == ("Placed | Paid", "type")
    assert {member.tag: member.kind for member in found.members} == {"Placed": Placed, "Paid": Paid}


def test_bytes() -> None:
    """Bytes have no field."""
    assert event_type(bytes) is BYTES


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (int, "it is not a Struct"),
        (list[Order], "it is not a Struct"),
        (Row, "it is not a Struct"),
        (Pair, "it is not a Struct"),
        (Any, "it is not a Struct"),
        (Placed | Untagged, "msgspec cannot decode into it|a union must be of Structs with a tag"),
        (Order | None, "a union must be of Structs with a tag"),
        (Data | int, "a union must be of Structs with a tag|msgspec cannot decode into it"),
        (7, "msgspec cannot decode into it"),
    ],
    ids=str,
)
def test_other_types_are_refused(kind: Any, why: str) -> None:
    """What records cannot be decoded into is refused, with what is accepted."""
    with pytest.raises(TypeError, match=why):
        event_type(kind)


def test_a_struct_asks_for_both_spellings() -> None:
    """Both spellings are a property of the Struct."""
    assert event_type(Session).both_spellings
    assert not event_type(Order).both_spellings


@pytest.mark.parametrize(
    "options", [{}, {"forbid_unknown_fields": True, "tag": True}, {"forbid_unknown_fields": True, "rename": "camel"}]
)
def test_both_spellings_need_a_plain_struct(options: dict[str, Any]) -> None:
    """A Struct that cannot be read in both spellings is refused at the start."""
    kind = msgspec.defstruct("Wrong", [("long_name", int)], namespace={"both_spellings": True}, **options)
    with pytest.raises(TypeError, match="both_spellings"):
        event_type(kind)


def test_both_spellings_need_names_that_differ() -> None:
    """A Struct with two fields that may be written alike is refused at the start."""
    kind = msgspec.defstruct("Alike", [("my_id", int), ("myId", int)], namespace=ASKS, forbid_unknown_fields=True)
    with pytest.raises(TypeError, match="two fields of the Struct may be written myId"):
        event_type(kind)


def test_a_union_is_not_read_in_both_spellings() -> None:
    """A union of Structs that ask for both spellings is refused, or camelCase would be read as missing fields."""
    one, other = (msgspec.defstruct(name, [("my_id", int, 0)], namespace=ASKS, tag=True) for name in ("One", "Other"))
    with pytest.raises(TypeError, match="leave both_spellings out"):
        event_type(one | other)


def test_generic_types() -> None:
    """Events of a generic type are instances of its class, with the fields that its parameters give."""
    union = event_type(Up[int] | Down[str])
    assert {member.kind: member.fields for member in union.members} == {Up: {"to_floor": int}, Down: {"to_floor": str}}
    (member,) = event_type(Floor[int]).members
    assert (member.kind, member.fields) == (Floor, {"to_floor": int})


@pytest.mark.parametrize("value", [b'{"to_floor":3}', b'{"toFloor":3}', b'{"toFloor":3,"new":1}'])
def test_both_spellings_of_a_generic_struct(value: bytes) -> None:
    """A generic Struct is read in both spellings too."""
    assert make_reader(event_type(Floor[int]), "json", "none").reread(value) == Floor(to_floor=3)


def test_both_spellings_of_any_struct() -> None:
    """Defaults, factories, required and keyword-only fields are as the Struct has them, in every spelling."""

    class Ticket(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
        both_spellings: ClassVar[bool] = True
        seat_row: int
        last_name: str = "?"
        all_tags: list[str] = msgspec.field(default_factory=list)

    reader = make_reader(event_type(Ticket), "json", "none")
    expected = Ticket(seat_row=3, last_name="x", all_tags=["a"])
    for value in (
        b'{"seat_row":3,"last_name":"x","all_tags":["a"]}',
        b'{"seatRow":3,"lastName":"x","allTags":["a"]}',
        b'{"seatRow":3,"last_name":"x","allTags":["a"],"other":1}',
        b'{"seat_row":3,"seatRow":3,"lastName":"x","allTags":["a"]}',
    ):
        for _ in range(8):
            assert reader.reread(value) == expected
    assert reader.reread(b'{"seatRow":3}') == Ticket(seat_row=3)
    assert reader.reread(b'{"seatRow":3,"new":1}').all_tags == []
    for wrong in (b'{"last_name":"x"}', b'{"lastName":"x"}', b'{"lastName":"x","new":1}', b'{"seatRow":"3"}'):
        with pytest.raises(msgspec.ValidationError):
            reader.reread(wrong)
    with pytest.raises(ValueError, match="seat_row and seatRow differ"):
        reader.reread(b'{"seat_row":3,"seatRow":4}')
