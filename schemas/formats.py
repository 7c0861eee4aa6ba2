"""Readers of events by type, format and framing: what becomes of the bytes of a record's value.

A reader has ``first``, the decoder that fits most values now, and ``reread``, which decodes a value that ``first``
refused, or raises. Both take the value of a record. FormatError says in our own words what is wrong with a value, and
quotes nothing of it.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from schemas.types import BYTES, EventType
from schemas.wire import AdaptiveReader, Buffer

CODECS = {"json": msgspec.json, "cloudevents": msgspec.json, "msgpack": msgspec.msgpack}
SCHEMA_ID_BYTES = 5
"""Length of the magic byte and the schema id that a schema registry's serializer writes before the document."""

NULL = msgspec.Raw(b"null")


class FormatError(ValueError):
    """A value is not in the format of its topic; the text holds nothing of the value."""


def make_reader(kind: EventType, form: str, framing: str, *, keep_unknown: bool = False) -> Reader:
    """Make the reader of a topic; ``form`` and ``framing`` are those of its ``[[schemas]]``.

    With ``keep_unknown`` the value of a record whose tag is none of its union's becomes an UnknownTag.
    """
    reader: Reader
    codec = CODECS[form]
    if kind is BYTES:
        return Plain(bytes)
    if kind.tag_field:
        tags = {each.tag: each.kind for each in kind.members}
        reader = Tagged(codec, kind.of, kind.tag_field, tags, keep_unknown=keep_unknown)
    else:
        reader = AdaptiveReader(kind.of, codec) if kind.both_spellings else Plain(codec.Decoder(kind.of).decode)
    if form == "cloudevents":
        reader = Unwrapped(reader, cloudevent_data)
    return Framed(reader) if framing == "confluent" else reader


class Reader(Protocol):
    """Decodes values of one topic."""

    @property
    def first(self) -> Callable[[Any], Any]:
        """The decoder that fits most values now; may be another one after a call of ``reread``."""

    def reread(self, value: Any) -> Any:
        """Decode a value that ``first`` refused, or raise."""


class UnknownTag(bytes):
    """The value of a record whose tag is none of its union's, for routes that ask for it."""

    __slots__ = ()


class Plain:
    """Decodes with one decoder, whatever comes."""

    def __init__(self, first: Callable[[Any], Any]) -> None:
        self.first = first

    def reread(self, value: Any) -> Any:
        """Decode a value once more, to raise its error."""
        return self.first(value)


class Tagged(Plain):
    """Decodes a tagged union of Structs; tells an unknown tag from other errors."""

    def __init__(self, codec: Any, union: Any, tag_field: str, tags: Mapping[Any, type], *, keep_unknown: bool) -> None:
        """With ``keep_unknown`` a value with an unknown tag becomes an UnknownTag instead of an error."""
        super().__init__(codec.Decoder(union).decode)
        head = msgspec.defstruct("Head", [("tag", str | int | None, None)], rename={"tag": tag_field})
        self._head = codec.Decoder(head).decode
        self._tag_field = tag_field
        self._tags = tags
        self._keep_unknown = keep_unknown

    def reread(self, value: Any) -> Any:
        """Decode a value, or say what is wrong with its tag."""
        try:
            return self.first(value)
        except msgspec.ValidationError:
            try:
                tag = self._head(value).tag
            except msgspec.ValidationError:
                tag = None
            if tag in self._tags:
                raise
            if tag is not None and self._keep_unknown:
                return UnknownTag(value)
        what = "has no tag" if tag is None else "has a tag that no type of the topic has"
        raise FormatError(f"it {what} in the field {self._tag_field}")


class Unwrapped:
    """Decodes what ``unwrap`` returns of a value."""

    def __init__(self, reader: Reader, unwrap: Callable[[Any], Any]) -> None:
        self._reader = reader
        self._unwrap = unwrap

    @property
    def first(self) -> Callable[[Any], Any]:
        """The decoder that fits most values now, of what is unwrapped."""
        decode, unwrap = self._reader.first, self._unwrap
        return lambda value: decode(unwrap(value))

    def reread(self, value: Any) -> Any:
        """Decode what is unwrapped, or raise."""
        return self._reader.reread(self._unwrap(value))


class Framed(Unwrapped):
    """Decodes documents behind a schema id; the usual case is decided without a call."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader, unframed)

    @property
    def first(self) -> Callable[[Any], Any]:
        """The decoder that fits most values now, of what is behind a schema id."""
        decode, length = self._reader.first, SCHEMA_ID_BYTES
        return lambda value: decode(value[length:] if value[0] == 0 else value)


def unframed(value: Buffer) -> Buffer:
    """Return the document of a value as serializers of a schema registry write it.

    They write a magic byte and the schema's id before it, or name the schema in a header and write the document alone.
    """
    if value[:1] != b"\0":
        return value
    if len(value) <= SCHEMA_ID_BYTES:
        raise FormatError("it has a schema id and no document behind it")
    return value[SCHEMA_ID_BYTES:]


class _Envelope(msgspec.Struct, gc=False):
    """A CloudEvent in structured mode, without the attributes that decoding does not need."""

    specversion: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None
    datacontenttype: str | None = None


_envelope = msgspec.json.Decoder(_Envelope).decode


def cloudevent_data(value: Buffer) -> Buffer:
    """Return the JSON document in a CloudEvent in structured mode. Raises FormatError, or msgspec's errors."""
    try:
        envelope = _envelope(value)
    except msgspec.ValidationError:
        if bytes(value).lstrip()[:1] == b"[":
            raise FormatError("it is a batch of CloudEvents; produce each as a record") from None
        raise FormatError("it is not a CloudEvent in structured mode; format = json reads binary mode") from None
    if not is_json(envelope.datacontenttype):
        raise FormatError("its datacontenttype is not JSON")
    if envelope.data_base64 is None:
        if envelope.data is msgspec.UNSET:
            raise FormatError("it is a CloudEvent without data")
        return envelope.data
    if envelope.data not in (msgspec.UNSET, NULL):
        raise FormatError("it is a CloudEvent with both data and data_base64")
    try:
        return binascii.a2b_base64(envelope.data_base64, strict_mode=True)
    except ValueError:
        raise FormatError("its data_base64 is not base64") from None


def is_json(content_type: str | None) -> bool:
    """Whether a content type is JSON; without one it is."""
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))
