"""Types of Kafka's flexible messages that aiokafka lacks, and requests that are pinned to one version."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar
from uuid import UUID

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.types import CompactArray, CompactString, Int8, Int32, Schema, TaggedFields

TEXT = CompactString("utf-8")
NUMBERS = CompactArray(Int32)
NO_TAGS: dict[int, bytes] = {}


class Uuid(AbstractType[UUID]):
    """The id of a topic: 16 bytes."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        """Return the bytes of an id."""
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        """Read an id. Raises ValueError at the end of the data."""
        return UUID(bytes=data.read(16))


class Nullable(Schema):
    """A struct that may be missing: one byte, -1 for None and 1 before the struct."""

    def encode(self, item: Any) -> bytes:
        """Return the bytes of a struct, or of None."""
        return Int8.encode(-1) if item is None else Int8.encode(1) + super().encode(item)

    def decode(self, data: BytesIO) -> Any:
        """Read a struct, or None."""
        return super().decode(data) if Int8.decode(data) >= 0 else None

    def repr(self, value: Any) -> str:
        """Describe a struct, or None."""
        return "NULL" if value is None else super().repr(value)


def array(*fields: tuple[str, Any]) -> CompactArray:
    """Return an array of structs, each with its tags."""
    return CompactArray(*fields, ("tags", TaggedFields))


def takes(versions: Mapping[int, tuple[int, int]], struct: type[RequestStruct]) -> bool:
    """Whether a broker with these versions takes a request in this version."""
    low, high = versions.get(struct.API_KEY, (0, -1))
    return low <= struct.API_VERSION <= high


class Pinned:
    """A request in its only version, with its arguments in the order of the schema; the tags are added.

    It has the one method of aiokafka's ``Request`` that a connection calls.
    """

    STRUCT: ClassVar[type[RequestStruct]]

    def __init__(self, *fields: Any) -> None:
        self.fields = fields

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> RequestStruct:
        """Return the request for a broker with these versions. Raises IncompatibleBrokerVersion."""
        if not self.spoken(versions):
            kind = type(self).__name__
            raise IncompatibleBrokerVersion(f"{kind} v{self.STRUCT.API_VERSION} is not supported by this broker")
        return self.STRUCT(*self.fields, NO_TAGS)

    @classmethod
    def spoken(cls, versions: Mapping[int, tuple[int, int]]) -> bool:
        """Whether a broker with these versions takes this request."""
        return takes(versions, cls.STRUCT)


def tagged(*fields: Any) -> tuple[Any, ...]:
    """Return a struct within a request, which ends with its tags."""
    return (*fields, NO_TAGS)
