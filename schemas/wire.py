"""The reader of events: decodes documents whose fields are in snake_case or camelCase, also mixed, with unknown fields.

A decoder that knows exactly the fields of a record is the fastest; one that does not refuses the record, which costs
more than decoding it. So the reader has a decoder for each form of a stream (snake_case or camelCase, each also with
the unknown fields seen so far), begins with the one that fitted last, and ends with a slow one that reads every form.
Measured on 325 bytes, times a bare msgspec decode: snake_case 1.1, camelCase 1.6, unknown fields 2.0, half of the
records in each spelling 2.5, both spellings within each record 6.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, get_origin

import msgspec

from schemas.session import Session

Event = TypeVar("Event", bound=msgspec.Struct)
Buffer = bytes | memoryview
Codec = Any
"""``msgspec.json`` or ``msgspec.msgpack``: modules with the same functions."""

REFUSED = (msgspec.ValidationError, UnicodeDecodeError)
"""What a decoder raises for a field that it does not know; the second when the name is not UTF-8."""
MAX_LEARNED = 32
"""Unknown fields that are learned, at most; records with others take the slow way."""
MAX_NAME = 100
"""Characters of a name that is learned, at most."""
MIXED_RECORDS = 1000
"""Records that the slow decoder reads before the fast ones are tried again."""
STEADY = 3
"""Records in a row that another decoder must fit before it is used first; a few among many switch nothing."""


class ConflictingSpellingsError(ValueError):
    """A record has a field in both spellings, and their values differ."""


def camel_case(name: str) -> str:
    """Return a name as the platform's SDK spells it: ``session_id`` becomes ``sessionId``."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def session_reader() -> Callable[[bytes], Session]:
    """Make a function that decodes one ``Session`` from JSON bytes.

    It raises msgspec's ``ValidationError`` and ``DecodeError``, ``UnicodeDecodeError``, ``RecursionError``, or
    ``ConflictingSpellingsError``.
    """
    return AdaptiveReader(Session).read


class AdaptiveReader(Generic[Event]):
    """Decodes a Struct that forbids unknown fields, in either spelling of its field names.

    Owned by one decoder and used by one thread; lives as long as the process. The result is always the Struct itself.
    """

    def __init__(self, struct: type[Event], codec: Codec = msgspec.json) -> None:
        """``codec`` is ``msgspec.json`` or ``msgspec.msgpack``."""
        self.first: Callable[[Buffer], Event] = codec.Decoder(struct).decode
        """The decoder that fits most records now; another one after a call of ``reread``."""
        self._struct = struct
        self._codec = codec
        self._mixed = _MixedReader(struct, codec)
        self._learned: dict[str, None] = {}
        self._decoders = self._make_decoders()
        self._fitting: Callable[[Buffer], Event] | None = None
        self._fitted = 0
        self._mixed_left = 0

    def read(self, value: Buffer) -> Event:
        """Decode one document, or raise (see ``session_reader``)."""
        try:
            return self.first(value)
        except REFUSED:
            return self.reread(value)

    def reread(self, value: Buffer) -> Event:
        """Decode a document that ``first`` refused, and note which decoder fits it.

        A loop may have taken ``first`` before it changed, so the present one is tried as well, after the others.
        """
        for decode in sorted(self._decoders, key=lambda each: each == self.first):
            try:
                event = decode(value)
            except REFUSED:
                continue
            self._note(decode)
            return event
        event = self._mixed.read(value)
        if not self._learn(value):
            self._mixed_left = MIXED_RECORDS
            self._note(self._read_mixed)
        return event

    def _read_mixed(self, value: Buffer) -> Event:
        self._mixed_left -= 1
        if self._mixed_left <= 0:
            self.first = self._decoders[0]
        return self._mixed.read(value)

    def _note(self, decode: Callable[[Buffer], Event]) -> None:
        """Use a decoder first once it has fitted several refused records in a row."""
        self._fitted = self._fitted + 1 if decode == self._fitting else 1
        self._fitting = decode
        if self._fitted >= STEADY:
            self.first, self._fitted = decode, 0

    def _learn(self, value: Buffer) -> bool:
        """Make decoders that know the unknown fields of a record too, a bounded number of times; False if not."""
        try:
            names = self._codec.decode(value, type=dict[str, msgspec.Raw])
        except UnicodeDecodeError:
            return False
        new = [each for each in names if each not in self._mixed.names and each not in self._learned]
        if not new or len(self._learned) + len(new) > MAX_LEARNED or max(map(len, new)) > MAX_NAME:
            return False
        self._learned |= dict.fromkeys(new)
        self._decoders = self._make_decoders()
        self._fitted = 0
        return True

    def _make_decoders(self) -> list[Callable[[Buffer], Event]]:
        """Make a decoder for each form; those without unknown fields come first, as most records have none."""
        usual = self._decoders[0] if self._learned else self.first
        camel = self._decoders[1] if self._learned else self._decoder(camel_case, ())
        if not self._learned:
            return [usual, camel]
        return [usual, camel, self._decoder(str, self._learned), self._decoder(camel_case, self._learned)]

    def _decoder(self, spelling: Callable[[str], str], unknown: Iterable[str]) -> Callable[[Buffer], Event]:
        """Make a decoder of the Struct in one spelling, with some unknown fields."""
        fields = msgspec.structs.fields(self._struct)
        struct, width = self._struct, len(fields)
        twin = _twin(struct, {each.name: spelling(each.name) for each in fields}, unknown)
        decode, astuple, make = self._codec.Decoder(twin).decode, msgspec.structs.astuple, maker(struct)
        if not unknown:
            return lambda value: make(*astuple(decode(value)))
        return lambda value: make(*astuple(decode(value))[:width])


def maker(struct: type[Event]) -> Callable[..., Event]:
    """Return what makes a Struct of the values of its fields, in their order."""
    struct = get_origin(struct) or struct  # Box[int] is not the class, and has no signature of its fields
    parameters = inspect.signature(struct).parameters.values()
    if all(each.kind is not inspect.Parameter.KEYWORD_ONLY for each in parameters):
        return struct
    names = struct.__struct_fields__
    return lambda *values: struct(**dict(zip(names, values, strict=True)))


class _MixedReader(Generic[Event]):
    """Decodes any mixture of both spellings and ignores unknown fields; the slow way."""

    def __init__(self, struct: type[Event], codec: Codec) -> None:
        self._fields = msgspec.structs.fields(struct)
        aliased = [field for field in self._fields if camel_case(field.name) != field.name]
        self.names = {name for field in self._fields for name in (field.name, camel_case(field.name))}
        """Names of fields, in both spellings."""
        self._make = maker(struct)
        self._decode = codec.Decoder(_both_spellings(struct)).decode
        positions = {field.name: index for index, field in enumerate(self._fields)}
        self._aliases = [(positions[field.name], codec.Decoder(field.type).decode) for field in aliased]

    def read(self, value: Buffer) -> Event:
        values = msgspec.structs.astuple(self._decode(value))
        known = self._merged(list(values[: len(self._fields)]), values[len(self._fields) :])
        given = zip(self._fields, known, strict=True)
        return self._make(*[_default(field) if each is msgspec.UNSET else each for field, each in given])

    def _merged(self, known: list[Any], aliases: tuple[Any, ...]) -> list[Any]:
        for (position, decode), raw in zip(self._aliases, aliases, strict=True):
            if raw is msgspec.UNSET:
                continue
            value, before = decode(raw), known[position]  # as the field's type, so that 1 never equals true
            if before is msgspec.UNSET or before is None:
                known[position] = value
            elif value is not None and value != before:
                name = self._fields[position].name
                raise ConflictingSpellingsError(f"{name} and {camel_case(name)} differ")
        return known


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """Return the default of a field that is missing. Raises ValidationError if it has none."""
    if field.required:
        raise msgspec.ValidationError(f"Object missing required field `{field.name}`")
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def _twin(struct: type[msgspec.Struct], names: Mapping[str, str], unknown: Iterable[str]) -> type[msgspec.Struct]:
    """Make a Struct with the same fields under other names on the wire, and with unknown fields behind them."""
    fields: list[Any] = [_field(each) for each in msgspec.structs.fields(struct)]
    extra = {f"unknown_{number}": name for number, name in enumerate(unknown)}
    fields += [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in extra]
    options: Any = {"rename": {**names, **extra}, "kw_only": True, "gc": False, "forbid_unknown_fields": True}
    return msgspec.defstruct(f"{struct.__name__}Twin", fields, **options)


def _both_spellings(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    own: list[Any] = []
    aliases: list[Any] = []
    for field in msgspec.structs.fields(struct):
        own.append((field.name, field.type | msgspec.UnsetType, msgspec.UNSET))
        if camel_case(field.name) != field.name:
            aliases.append((camel_case(field.name), msgspec.Raw | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(f"{struct.__name__}BothSpellings", own + aliases, gc=False)


def _field(field: msgspec.structs.FieldInfo) -> tuple[Any, ...]:
    if field.required:
        return (field.name, field.type)
    if field.default is msgspec.NODEFAULT:
        return (field.name, field.type, msgspec.field(default_factory=field.default_factory))
    return (field.name, field.type, field.default)
