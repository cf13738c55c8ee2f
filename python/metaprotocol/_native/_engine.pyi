"""The C++ extension; see metaprotocol.engine."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from metaprotocol.engine.host import Host
from metaprotocol.errors import Error

class DecodeError(Error, ValueError): ...
class ConfigInvalid(Error, ValueError): ...

class Direction:
    REQUEST: ClassVar[Direction]
    RESPONSE: ClassVar[Direction]

class MessageKind:
    name: str
    REQUEST: ClassVar[MessageKind]
    ONE_WAY: ClassVar[MessageKind]
    RESPONSE: ClassVar[MessageKind]
    HEARTBEAT: ClassVar[MessageKind]
    HEARTBEAT_REPLY: ClassVar[MessageKind]
    GO_AWAY: ClassVar[MessageKind]
    OTHER: ClassVar[MessageKind]
    STREAM_OPEN: ClassVar[MessageKind]
    STREAM_DATA: ClassVar[MessageKind]
    STREAM_END: ClassVar[MessageKind]
    STREAM_RESET: ClassVar[MessageKind]
    STREAM_WINDOW: ClassVar[MessageKind]

class ReplyStatus:
    name: str
    OK: ClassVar[ReplyStatus]
    EXCEPTION: ClassVar[ReplyStatus]
    ERROR: ClassVar[ReplyStatus]

class LocalReply:
    NO_CONTENT: ClassVar[LocalReply]
    NO_ROUTE: ClassVar[LocalReply]
    CLUSTER_NOT_FOUND: ClassVar[LocalReply]
    NO_HEALTHY_UPSTREAM: ClassVar[LocalReply]
    TIMEOUT: ClassVar[LocalReply]
    OVER_LIMIT: ClassVar[LocalReply]
    DENIED: ClassVar[LocalReply]
    FAULT: ClassVar[LocalReply]
    UPSTREAM_LOST: ClassVar[LocalReply]
    TOO_LARGE: ClassVar[LocalReply]
    MALFORMED: ClassVar[LocalReply]
    SHUTTING_DOWN: ClassVar[LocalReply]
    BAD_RESPONSE: ClassVar[LocalReply]

class LeaseCloseReason:
    CONNECT_FAILED: ClassVar[LeaseCloseReason]
    NO_HOST: ClassVar[LeaseCloseReason]
    NO_CLUSTER: ClassVar[LeaseCloseReason]
    OVERFLOW: ClassVar[LeaseCloseReason]
    REMOTE_CLOSE: ClassVar[LeaseCloseReason]
    LOCAL_CLOSE: ClassVar[LeaseCloseReason]

class Message:
    """One decoded message. ``length`` is in bytes, head and body."""

    kind: MessageKind
    status: ReplyStatus
    status_code: int
    id: int
    timeout_us: int
    length: int
    metadata: list[tuple[bytes, bytes]]
    stream_id: int
    end_stream: bool
    window: int

class Codec:
    """One protocol on one connection: what was detected of it is remembered."""

    def __init__(
        self, name: str, options: str = "", declaration: str = "", library: str = ""
    ) -> None:
        """The codec of that name, of a declaration in JSON, or of the shared library at an absolute
        path (then the name may be ""). ValueError if something is wrong."""

    @property
    def traits(self) -> dict[str, Any]: ...
    def decode(
        self, direction: Direction, data: bytes, max_message_bytes: int = ...
    ) -> Message | int:
        """The message that ``data`` begins with, or how many bytes are needed to tell.

        Raises DecodeError for bytes that are not the protocol, or too large.
        """

    def encode(
        self,
        direction: Direction,
        data: bytes,
        id: int | None = None,
        mutation: Sequence[tuple[str, str, str]] = (),
        required: bool = False,
    ) -> bytes:
        """The message with another id and with a mutation applied; nothing where that cannot be.

        A mutation is ("set" | "add_if_absent" | "remove", key, value). ``required``: a request that
        has a place for it, but no room, cannot be.
        """

    def reply(self, request: bytes, reply: LocalReply, text: str = "") -> bytes | None:
        """The protocol's own answer of that kind to ``request``."""

    def heartbeat_reply(self, direction: Direction, heartbeat: bytes) -> bytes | None:
        """The answer to a heartbeat."""

    def explain(self, direction: Direction, data: bytes) -> list[tuple[Any, int, int, bytes]]:
        """The fields of the message: name, first byte, byte behind the last, value. Of codecs that
        are not declared it is the metadata; places that are not known are 0."""

    def check(
        self, direction: Direction, data: bytes, seed: int = 1
    ) -> tuple[str | None, int, int]:
        """Takes ``data`` for what one side sends, and checks what must hold of every codec: the
        rule that is broken, the number of messages, and what was seen, as bits."""

class Config:
    """The configurations of one filter; ``json`` is a ProxyConfig. Raises ConfigInvalid."""

    def __init__(self, json: str) -> None: ...
    def update(self, json: str) -> None:
        """Sessions take it up between two messages."""

    def match(
        self,
        metadata: Sequence[tuple[str, str]],
        connection: Sequence[tuple[str, str]] = (),
    ) -> str | None:
        """The name of the first table's route for a message with this metadata."""

class ConnectionInfo:
    remote_address: str
    remote_port: int
    local_address: str
    local_port: int
    sni: str
    peer_subject: str
    peer_uri_sans: list[str]
    peer_dns_sans: list[str]

class Engine:
    """A whole proxy for one worker, in virtual time (microseconds)."""

    def __init__(self, host: Host, seed: int = 1) -> None: ...
    def open_session(self, config: Config, session: int, info: ConnectionInfo = ...) -> bool: ...
    def session_data(
        self, session: int, pieces: Sequence[bytes], end_stream: bool = False
    ) -> None: ...
    def session_closed(self, session: int) -> None: ...
    def session_write_buffer_full(self, session: int, full: bool) -> None: ...
    def lease_ready(self, lease: int) -> None: ...
    def lease_data(self, lease: int, pieces: Sequence[bytes]) -> None: ...
    def lease_drained(self, lease: int) -> None:
        """The answer to ``Host.probe_lease``."""

    def lease_closed(self, lease: int, reason: LeaseCloseReason) -> None: ...
    def call_done(self, call: int, message: bytes | None) -> None:
        """The answer to ``Host.start_call``; None if there is none. Late ones are ignored."""

    def set_cluster(
        self, name: str, generation: int, policy: str, hosts: Sequence[tuple[str, int, bool]]
    ) -> None:
        """``hosts``: address, weight, healthy. ``policy``: a ClusterPolicy as JSON."""

    def remove_cluster(self, name: str, generation: int) -> None: ...
    def advance(self, us: int) -> None:
        """Lets time pass; timers fire on the way."""

    def drain(self) -> None: ...
    def flush_metrics(self) -> None: ...
    @property
    def sessions_open(self) -> int: ...
    @property
    def exchanges_open(self) -> int: ...
    @property
    def now_us(self) -> int: ...
    def dump_json(self) -> str: ...

def codec_names() -> list[str]: ...
def read_yaml(
    text: str, words: dict[str, Any], number: Callable[[str], Any], values: int, depth: int
) -> tuple[Any, dict[tuple[str | int, ...], int]] | None:
    """What a YAML document says, with at most so many values and so deep; and where in the text
    the keys of its outermost mapping are, and those of the mappings in that. None: it has something
    out of the ordinary, such as an error.

    ``words`` and ``number`` say what texts without quotes mean; the latter is asked about those
    that begin as numbers do, and may raise ValueError."""
