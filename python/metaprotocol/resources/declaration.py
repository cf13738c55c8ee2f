"""A protocol that is described instead of programmed: `spec.declaration`.

The same messages as in the engine's configuration (api/, declaration.proto), which compiles them;
what is wrong between fields it tells itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from metaprotocol.resources.base import Model

__all__ = ["Declaration", "engine_json"]


class FrameLength(Model):
    """The length of a message is the sum of some number fields, and of all bytes up to and
    including `after`."""

    fields: Annotated[
        list[Annotated[str, Field(max_length=255)]], Field(min_length=1, max_length=8)
    ]
    """The number fields; all must be at fixed places."""
    after: Annotated[str, Field(max_length=255)] | None = None
    """The field behind which the counted bytes begin; without it, they begin with the message."""
    add: Annotated[int, Field(ge=-65536, le=65536)] | None = None
    """Added to the sum, for protocols that count in some other way."""


class Framing(Model):
    """Where a message ends."""

    length: FrameLength | None = None
    """Fields say how long it is."""
    delimiter: Annotated[str, Field(min_length=1, max_length=16)] | None = None
    """This text is its end, such as a line feed."""


class DeclaredEntries(Model):
    """A list of keys with values."""

    length_prefix: Annotated[int, Field(ge=1, le=4)] | None = None
    """How many bytes the list takes stands before it, in so many bytes."""
    count_prefix: Annotated[int, Field(ge=1, le=4)] | None = None
    """How many entries there are stands before it, in so many bytes."""
    sized_by: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """How many bytes the list takes is in the number field of that name before it."""
    until: Annotated[str, Field(min_length=1, max_length=16)] | None = None
    """The list goes up to this separator, or to the end of the message."""
    key_length_prefix: Annotated[int, Field(ge=0, le=4)] | None = None
    """Each key has its length before it, in so many bytes."""
    value_length_prefix: Annotated[int, Field(ge=0, le=4)] | None = None
    """Each value has its length before it, in so many bytes."""
    assign: Annotated[str, Field(max_length=16)] | None = None
    """In lists of text: what stands between a key and its value, such as "="."""
    separator: Annotated[str, Field(max_length=16)] | None = None
    """In lists of text: what stands between two entries, such as ";"."""


class NumberName(Model):
    """A text for a number."""

    number: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """The number."""
    name: Annotated[str, Field(min_length=1, max_length=255)]
    """What it is called."""


class DeclaredMember(Model):
    """One member of a message within the message: a field like all others, named wherever fields
    are."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
    """Its name, and its metadata key."""
    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            pattern=r"^[A-Za-z0-9_$@-]{1,63}([.][A-Za-z0-9_$@-]{1,63}){0,3}$",
        ),
    ]
    """Where it is: its number, or in JSON its name, with those of the messages it is in before it,
    such as "1.2" and "head.method"."""
    type: Literal["text", "uint64", "int64", "int32", "presence", "entries"] | None = None
    """What it holds. In JSON a member of another type is refused, and null is one that is not
    there. `text`: a string, or bytes. `uint64`: a number without a sign. `int64`: a number with a
    sign. `int32`: a number with a sign, of which readers take 32 bits. In JSON it must fit into
    them. `presence`: 1 if it is there, whatever it holds, and 0 if it is not. `entries`: a map of
    texts, or a repeated message of a key (1) and a value (2): metadata keys of their own. Where a
    text has the same path, what is no such message is that text. In JSON an object, whose numbers
    and booleans are taken for texts; one with objects or lists in it is refused."""
    required: bool | None = None
    """Requests and responses without it cannot be decoded."""
    value: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    """The number that it always has (`presence`: 0 if it must not be there); messages with another
    one cannot be decoded."""
    names: Annotated[list[NumberName], Field(max_length=1024)] = Field(default_factory=list)
    """Texts for numbers: what a route matches in place of the number."""
    without: Annotated[str, Field(max_length=16)] | None = None
    """A text without any of these characters; with one, the message cannot be decoded."""


class DeclaredMessage(Model):
    """A message within the message. It is known only as a whole, and so waited for as one. In
    protobuf the last of several members of a number counts, as for all its readers, but a message
    within it that is there twice is refused, as are groups. In JSON, whose readers do not agree on
    that, what is known and there twice is refused; of entries the last counts. Refused is also what
    some readers, but not all, would take for a known name: one that differs from it in the case of
    letters, in '_' and in '-' only."""

    length_prefix: Annotated[int, Field(ge=1, le=4)] | None = None
    """How many bytes it takes stands before it, in so many bytes."""
    sized_by: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """How many bytes it takes is in the number field of that name before it."""
    members: Annotated[list[DeclaredMember], Field(min_length=1, max_length=32)]
    """What is to be known of it. Everything else is passed on as it is."""
    format: Literal["protobuf", "json"] | None = None
    """How it is written. `protobuf`: protobuf. `json`: an object in JSON (RFC 8259, in UTF-8), 64
    levels deep at most in each of its values."""


class DeclaredField(Model):
    """One field. Every field that is no constant, no length and not the correlation id is also a
    metadata key that routes can match on."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
    """Its name, and its metadata key."""
    bytes: Annotated[int, Field(ge=1, le=8)] | None = None
    """A number without a sign, of so many bytes."""
    bits_of: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Some bits of the number field of that name before it (see `mask`). Takes no bytes
    itself."""
    text_bytes: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Text in so many bytes, with spaces or zero bytes behind it."""
    length_prefix: Annotated[int, Field(ge=1, le=4)] | None = None
    """Text with its length before it, in so many bytes."""
    sized_by: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Text whose length in bytes the number field of that name before it holds."""
    until: Annotated[str, Field(min_length=1, max_length=16)] | None = None
    """Text that goes up to this separator, or to the end of the message."""
    entries: DeclaredEntries | None = None
    """A list of keys with values, which become metadata keys of their own."""
    message: DeclaredMessage | None = None
    """A message within the message, in protobuf or JSON, of which some members are fields too."""
    mask: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    """For `bits_of`: which bits, such as 0x80; the lowest of them counts 1."""
    value: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    """The number that always stands there; a message with another one is not of this protocol."""
    text_value: Annotated[str, Field(max_length=4096)] | None = None
    """The text that always stands there."""
    names: Annotated[list[NumberName], Field(max_length=1024)] = Field(default_factory=list)
    """Texts for numbers: what a route matches in place of the number."""
    nullable: bool | None = None
    """For lengths: all bits set means that there is no text."""
    decimal: bool | None = None
    """For `until`: the text is a number in decimal digits."""
    length_through: Annotated[str, Field(max_length=64)] | None = None
    """For `bytes`: the number says how many bytes there are from behind it up to the end of the
    field of that name, which comes later; such as the length of a head."""


class FieldIs(Model):
    """A field has one of some values."""

    field: Annotated[str, Field(min_length=1, max_length=64)]
    """The field."""
    values: Annotated[list[Annotated[int, Field(ge=0, le=2**64 - 1)]], Field(max_length=256)] = (
        Field(default_factory=list)
    )
    """Numbers that it may have."""
    texts: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=256)] = Field(
        default_factory=list
    )
    """Texts that it may have."""


class KindRule(Model):
    """What messages with certain fields are."""

    kind: Literal[
        "request", "one_way", "response", "heartbeat", "heartbeat_reply", "go_away", "other"
    ]
    """What it is. `request`: expects one reply. `one_way`: a request that nothing answers.
    `response`: the reply to a request. `heartbeat`: answered by the proxy with `heartbeat_reply`,
    and not passed on. `heartbeat_reply`: the answer to a heartbeat: dropped. `go_away`: its
    sender takes no more requests on this connection. `other`: nothing that is passed on."""
    when: Annotated[list[FieldIs], Field(min_length=1, max_length=16)]
    """All of these must hold."""
    sent_by: Literal["any", "client", "server"] | None = None
    """Whose messages the rule is for. `any`: both. `client`: what clients send. `server`: what
    servers send. Rules for requests are for clients' and those for responses for servers', unless
    this says otherwise: requests and one-way messages of servers go to the client on whose
    connection they come, which takes `stateful`, and the responses of clients back."""


class NumberRange(Model):
    """Numbers without gaps."""

    first: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """The first."""
    last: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """The last."""


class DeclaredStatus(Model):
    """Where a response says how it went."""

    field: Annotated[str, Field(min_length=1, max_length=64)]
    """The number field of responses."""
    ok: Annotated[list[Annotated[int, Field(ge=0, le=2**64 - 1)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    """Its values in good responses; without any: 0."""
    exception: Annotated[list[Annotated[int, Field(ge=0, le=2**64 - 1)]], Field(max_length=64)] = (
        Field(default_factory=list)
    )
    """Its values where the service itself answered with an error. All others are errors of the
    server."""
    server_errors: Annotated[list[NumberRange], Field(max_length=16)] = Field(default_factory=list)
    """Its values that are errors of the server. With these, all others are the service's own
    errors."""


class DeclaredTimeout(Model):
    """Where a request says how long its client waits."""

    field: Annotated[str, Field(min_length=1, max_length=64)]
    """The number field of requests; 0 there is no timeout."""
    unit: Literal["milliseconds", "seconds", "microseconds"] | None = None
    """What the number counts. `milliseconds`: thousandths of a second. `seconds`: seconds.
    `microseconds`: millionths of a second."""


class FieldValue(Model):
    """A field's value."""

    field: Annotated[str, Field(min_length=1, max_length=64)]
    """The field."""
    number: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    """A number."""
    text: Annotated[str, Field(max_length=4096)] | None = None
    """A text; for a number field, one of its names."""


class ReplyNumber(Model):
    """The status of some errors."""

    replies: Annotated[
        list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=16)
    ]
    """The errors, such as no_route, timeout or over_limit."""
    number: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """The status."""


class ReplyTemplate(Model):
    """A reply that the proxy writes in place of a server. In texts, {text} stands for what is
    wrong, {reply} for the kind of error, such as no_route, and {status} for the number in the
    status field."""

    set: Annotated[list[FieldValue], Field(max_length=48)] = Field(default_factory=list)
    """Values of fields."""
    copied: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=7)] = Field(
        default_factory=list
    )
    """Number fields that are taken from the request; 7 bytes in all at most."""
    body: Annotated[str, Field(max_length=4096)] | None = None
    """What follows the fields."""
    statuses: Annotated[list[ReplyNumber], Field(max_length=16)] = Field(default_factory=list)
    """What the status field holds for some errors, in place of what `set` says."""


class MessageTemplate(Model):
    """A message that the proxy writes. Constants, lengths and the correlation id come by
    themselves; fields that are not named are 0 or empty."""

    set: Annotated[list[FieldValue], Field(max_length=48)] = Field(default_factory=list)
    """Values of fields."""
    copied: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=7)] = Field(
        default_factory=list
    )
    """Number fields that are taken from the message that is answered; 7 bytes in all at most."""
    body: Annotated[str, Field(max_length=4096)] | None = None
    """What follows the fields."""


class DeclaredCrc32(Model):
    """A CRC-32, as in zlib and Ethernet, of all that is before it: the last 4 bytes of a message,
    which `framing` does not count."""

    when: Annotated[list[FieldIs], Field(max_length=8)] = Field(default_factory=list)
    """Which messages end with it; all of these must hold. Without any: all do."""


class DeclaredForm(Model):
    """One form of messages."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """What it is called in messages about it."""
    value: Annotated[int, Field(ge=0, le=2**64 - 1)]
    """The number that its messages have."""
    fields: Annotated[list[DeclaredField], Field(max_length=48)] = Field(default_factory=list)
    """What comes after the declaration's own `fields`."""
    request_fields: Annotated[list[DeclaredField], Field(max_length=48)] = Field(
        default_factory=list
    )
    """What comes after `fields` in what clients send."""
    response_fields: Annotated[list[DeclaredField], Field(max_length=48)] = Field(
        default_factory=list
    )
    """What comes after `fields` in what servers send."""


class DeclaredForms(Model):
    """Forms of messages. A response has the form of its request."""

    field: Annotated[str, Field(min_length=1, max_length=64)]
    """Which form a message has: a number field, one of those in `fields` and at a fixed place. A
    message with a number that no form has is not of this protocol."""
    forms: Annotated[list[DeclaredForm], Field(min_length=1, max_length=4)]
    """The forms. What the proxy sends of itself (`ping`) has the first one."""


class Declaration(Model):
    """A protocol in terms of its bytes: where a message ends, which fields it begins with, and
    what they mean. What follows the fields is the body, which is passed on as it is."""

    framing: Framing
    """Where each message ends."""
    byte_order: Literal["big", "little"] | None = None
    """How numbers of several bytes are written. `big`: most significant byte first. `little`:
    least significant byte first."""
    fields: Annotated[list[DeclaredField], Field(max_length=48)] = Field(default_factory=list)
    """What every message begins with, in order and without gaps."""
    request_fields: Annotated[list[DeclaredField], Field(max_length=48)] = Field(
        default_factory=list
    )
    """What comes after `fields` in what clients send."""
    response_fields: Annotated[list[DeclaredField], Field(max_length=48)] = Field(
        default_factory=list
    )
    """What comes after `fields` in what servers send."""
    kinds: Annotated[list[KindRule], Field(max_length=64)] = Field(default_factory=list)
    """What a message is, by its fields; the first rule that fits says it. What no rule fits is a
    request if it comes from a client and a response if it comes from a server, but if there are
    rules for requests (or responses) it is none and goes no further."""
    correlation_id: Annotated[str, Field(max_length=255)] | None = None
    """The field that a response repeats from its request: a number of 4 or 8 bytes, or a decimal
    one. With it, requests of many clients share connections; without, a connection carries one
    request at a time. In JSON it may be any integer, and messages without it cannot be decoded."""
    status: DeclaredStatus | None = None
    """What responses say of their success; without it all are taken for good ones."""
    timeout: DeclaredTimeout | None = None
    """How long a client waits for its reply, if requests say it."""
    ordered_replies: bool | None = None
    """Clients may send several requests ahead and expect the replies in the same order."""
    stateful: bool | None = None
    """Connections remember who uses them (login, transactions): each client gets its own."""
    error_reply: ReplyTemplate | None = None
    """What the proxy answers in place of a server when something is wrong. Without it the
    client's connection is closed."""
    empty_reply: ReplyTemplate | None = None
    """What a direct reply without an error sends."""
    heartbeat_reply: MessageTemplate | None = None
    """The answer to a heartbeat."""
    ping: MessageTemplate | None = None
    """A heartbeat that the proxy can send to a server, which answers it with the same correlation
    id."""
    go_away: MessageTemplate | None = None
    """What tells a client to send no more requests on its connection."""
    crc32: DeclaredCrc32 | None = None
    """The checksum at the end of messages. Messages are waited for as a whole then: those that it
    does not fit are refused, and those that the proxy changes get another one."""
    forms: DeclaredForms | None = None
    """Where messages have one of several forms: what comes after `fields`, in place of
    `request_fields` and `response_fields`. All else is said once, for all forms, by the names that
    their fields have."""

    def field_lists(self) -> list[list[DeclaredField]]:
        """All there are, in order."""
        lists = [self.fields, self.request_fields, self.response_fields]
        for form in self.forms.forms if self.forms else ():
            lists += [form.fields, form.request_fields, form.response_fields]
        return lists


def engine_json(declaration: Declaration) -> dict[str, Any]:
    """The declaration as the engine's configuration has it."""
    written: dict[str, Any] = _upper(declaration.model_dump(mode="json", exclude_unset=True))
    return written


# Fields whose values are names of the engine's enumerations.
_NAMES = frozenset({"byte_order", "format", "kind", "sent_by", "type", "unit"})


def _upper(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: item.upper() if key in _NAMES and isinstance(item, str) else _upper(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_upper(item) for item in value]
    return value
