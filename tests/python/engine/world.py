"""A simulated world around one engine: clients, servers, and what must hold of them."""

# ruff: noqa: ARG002 (actions share one signature, whether they use both numbers or not)

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from metaprotocol.engine import Config, Engine, LeaseCloseReason

HOSTS = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
TIMEOUT_US = 2_000_000
SECOND = 1_000_000
_HEADER = struct.Struct(">HBBQI")
_MAGIC = 0xDABB
_OK = 20


@dataclass(frozen=True)
class Action:
    """One step of a script; ``a`` and ``b`` choose among what there is."""

    kind: str
    a: int
    b: int


@dataclass
class Client:
    """One client connection, as the client sees it."""

    received: bytes = b""
    waiting: dict[int, str] = field(default_factory=dict)
    unsent: bytes = b""
    may_be_closed: bool = False
    paused: bool = False


@dataclass
class Upstream:
    """One upstream connection, as the server sees it."""

    ready: bool = False
    probing: bool = False
    paused: bool = False
    received: bytes = b""
    owed: list[tuple[int, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


def text(value: str) -> bytes:
    """A Hessian2 string of at most 1023 characters."""
    data = value.encode()
    if len(data) < 32:
        return bytes([len(data)]) + data
    return bytes([0x30 + (len(data) >> 8), len(data) & 0xFF]) + data


def request(number: int, token: str, method: str, one_way: bool) -> bytes:
    """A Dubbo2 request whose argument is ``token``."""
    fields = ("2.0.2", "svc", "0.0.0", method, "Ljava/lang/String;", token)
    body = b"".join(text(item) for item in fields) + b"HZ"
    flags = 0xC2 if not one_way else 0x82
    return _HEADER.pack(_MAGIC, flags, 0, number, len(body)) + body


def response(number: int, token: str) -> bytes:
    """A Dubbo2 response whose value is ``token``."""
    body = b"\x91" + text(token)
    return _HEADER.pack(_MAGIC, 0x02, _OK, number, len(body)) + body


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole Dubbo2 frames, and what is left."""
    found = []
    while len(data) >= _HEADER.size:
        magic, _, _, _, length = _HEADER.unpack_from(data)
        assert magic == _MAGIC, f"not a frame: {data[:32]!r}"
        end = _HEADER.size + length
        if len(data) < end:
            break
        found.append(data[:end])
        data = data[end:]
    return found, data


def config(mode: str, generation: int) -> str:
    """Routes: ``split`` over two clusters, ``none`` nowhere, ``refused`` answered by the proxy."""
    return json.dumps(
        {
            "name": "world",
            "protocol": {"codec": "dubbo", "upstream_connections": mode},
            "default_timeout": f"{TIMEOUT_US / SECOND:g}s",
            "limits": {"max_requests_in_flight": 8},
            "route_tables": [
                {
                    "name": "t",
                    "routes": [
                        {
                            "match": [{"key": "method", "exact": "split"}],
                            "weighted_clusters": [
                                {"name": "one", "weight": 1 + generation % 3},
                                {"name": "two", "weight": 1},
                            ],
                        },
                        {
                            "match": [{"key": "method", "exact": "refused"}],
                            "direct_reply": {"kind": "denied"},
                        },
                        {
                            "match": [{"key": "method", "one_of": {"values": ["plain", "lost"]}}],
                            "cluster": "one",
                        },
                    ],
                }
            ],
        }
    )


class World:
    """Implements the host of one engine, and plays scripts against it."""

    METHODS = ("plain", "split", "lost", "none", "refused")
    KINDS = (
        *["open", "request", "request", "request", "pieces", "one_way", "heartbeat"],
        *["ready", "ready", "answer", "answer", "answer", "late_answer"],
        *["refuse", "lose", "reset_client", "end_client", "garbage", "server_garbage"],
        *["time", "long_time", "routes", "hosts", "cluster", "unread", "read"],
    )

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.clients: dict[int, Client] = {}
        self.upstreams: dict[int, Upstream] = {}
        self.gauges: Counter[str] = Counter()
        self.forwarded: Counter[str] = Counter()
        self.one_way_tokens: set[str] = set()
        self.lost_tokens: set[str] | None = None
        self.replies_by_servers = 0
        self.replies_by_the_proxy = 0
        self._next_client = 1
        self._next_request = 1
        self._generation = 1
        self._config = Config(config(mode, 0))
        self.engine = Engine(self, seed=7)
        for name in ("one", "two"):
            self.engine.set_cluster(name, 1, "{}", [(host, 1, True) for host in HOSTS])

    # --- the engine's host

    def write_session(self, session: int, data: bytes) -> None:
        client = self.clients[session]
        whole, client.received = frames(client.received + data)
        for frame in whole:
            self._client_got(session, client, frame)

    def close_session(self, session: int, flush: bool) -> None:
        client = self.clients.pop(session)
        assert client.may_be_closed, f"session {session} was closed for nothing"

    def pause_session(self, session: int, paused: bool) -> None:
        client = self.clients[session]
        assert client.paused != paused
        client.paused = paused

    def open_lease(self, lease: int, cluster: str, address: str) -> None:
        assert lease not in self.upstreams
        self.upstreams[lease] = Upstream()

    def write_lease(self, lease: int, data: bytes) -> None:
        upstream = self.upstreams[lease]
        assert upstream.ready
        whole, upstream.received = frames(upstream.received + data)
        for frame in whole:
            flags, number = frame[2], _HEADER.unpack_from(frame)[3]
            if flags & 0x20 or not flags & 0x80:
                continue
            token = self._token(frame)
            self.forwarded[token] += 1
            assert self.forwarded[token] == 1, f"{token} was forwarded twice"
            upstream.tokens.add(token)
            if flags & 0x40:
                upstream.owed.append((number, token))

    def probe_lease(self, lease: int) -> None:
        assert self.upstreams[lease].ready
        assert not self.upstreams[lease].probing
        self.upstreams[lease].probing = True

    def pause_lease(self, lease: int, paused: bool) -> None:
        assert self.upstreams[lease].ready
        assert self.upstreams[lease].paused != paused
        self.upstreams[lease].paused = paused

    def release_lease(self, lease: int) -> None:
        assert not self.upstreams.pop(lease).received

    def reset_lease(self, lease: int) -> None:
        del self.upstreams[lease]

    def start_call(
        self, call: int, session: int, cluster: str, path: str, message: bytes, timeout_us: int
    ) -> None:
        raise AssertionError("the configuration asks nobody")

    def log(self, text: str) -> None:
        pass

    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None:
        if name.endswith("_active"):
            self.gauges[name] += delta

    # --- what a client sees

    def _client_got(self, session: int, client: Client, frame: bytes) -> None:
        _, flags, status, number, _ = _HEADER.unpack_from(frame)
        if flags & 0x20:
            return
        assert not flags & 0x80, "a request came to a client"
        assert number in client.waiting, f"session {session} got a reply it does not wait for"
        token = client.waiting.pop(number)
        if status != _OK:
            self.replies_by_the_proxy += 1
            if self.lost_tokens is not None:
                opened = self.forwarded[token] == 0
                assert opened or token in self.lost_tokens, (
                    f"{token} failed with another's upstream"
                )
            return
        self.replies_by_servers += 1
        assert self._token(frame) == token, f"session {session} got another's reply"

    @staticmethod
    def _token(frame: bytes) -> str:
        found = re.search(rb"token-\d+-end", frame)
        assert found is not None
        return found.group().decode()

    # --- actions

    def play(self, action: Action) -> None:
        """One step of a script."""
        handler: Callable[[int, int], None] = getattr(self, "_" + action.kind)
        handler(action.a, action.b)
        assert self.engine.sessions_open == len(self.clients)

    def _open(self, a: int, b: int) -> None:
        session = self._next_client
        self._next_client += 1
        self.clients[session] = Client()
        assert self.engine.open_session(self._config, session)

    def _some_client(self, a: int) -> int | None:
        able = [key for key, client in self.clients.items() if not client.may_be_closed]
        return able[a % len(able)] if able else None

    def _some_upstream(self, a: int, ready: bool) -> int | None:
        able = [key for key, upstream in self.upstreams.items() if upstream.ready == ready]
        return able[a % len(able)] if able else None

    def _send(self, session: int, data: bytes, pieces: list[bytes] | None = None) -> None:
        client = self.clients[session]
        if client.paused:  # waits in the kernel
            client.unsent += data
            return
        self.engine.session_data(session, pieces or [data])
        self._send_unsent()

    def _send_unsent(self) -> None:
        for session, client in list(self.clients.items()):
            if client.unsent and not client.paused and session in self.clients:
                data, client.unsent = client.unsent, b""
                self.engine.session_data(session, [data])

    def _new_request(self, session: int, method: str, one_way: bool = False) -> bytes:
        number = self._next_request
        self._next_request += 1
        token = f"token-{number}-end"
        if one_way:
            self.one_way_tokens.add(token)
        else:
            # Clients' ids overlap on purpose.
            number %= 64
            if number in self.clients[session].waiting:
                number = 1000 + self._next_request
            self.clients[session].waiting[number] = token
        return request(number, token, method, one_way)

    def _request(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None:
            self._send(session, self._new_request(session, self.METHODS[b % len(self.METHODS)]))

    def _pieces(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is None:
            return
        data = self._new_request(session, "plain") + self._new_request(session, "split")
        cut = b % len(data)
        self._send(session, data[:cut])
        if session in self.clients:
            self._send(session, data[cut:], [data[cut : cut + 3], data[cut + 3 :]])

    def _one_way(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None:
            method = self.METHODS[b % len(self.METHODS)]
            self._send(session, self._new_request(session, method, one_way=True))

    def _heartbeat(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None:
            self._send(session, _HEADER.pack(_MAGIC, 0xE2, 0, 5, 1) + b"N")

    def _ready(self, a: int, b: int) -> None:
        lease = self._some_upstream(a, ready=False)
        if lease is not None:
            self.upstreams[lease].ready = True
            self.engine.lease_ready(lease)

    def _answer(self, a: int, b: int) -> None:
        lease = self._some_upstream(a, ready=True)
        if lease is None or not self.upstreams[lease].owed:
            return
        owed = self.upstreams[lease].owed
        number, token = owed.pop(b % len(owed))
        data = response(number, token)
        cut = b % len(data)
        self.engine.lease_data(lease, [data[:cut], data[cut:]])
        self._send_unsent()

    def _late_answer(self, a: int, b: int) -> None:
        lease = self._some_upstream(a, ready=True)
        if lease is None:
            return
        number = 1 + b % 8
        if any(number == owed for owed, _ in self.upstreams[lease].owed):
            return
        self.engine.lease_data(lease, [response(number, "token-0-end")])
        self._send_unsent()

    def _fail(self, lease: int, reason: LeaseCloseReason) -> None:
        upstream = self.upstreams.pop(lease)
        self.lost_tokens = upstream.tokens
        self.engine.lease_closed(lease, reason)
        self.lost_tokens = None
        self._send_unsent()

    def _refuse(self, a: int, b: int) -> None:
        lease = self._some_upstream(a, ready=False)
        if lease is not None:
            self._fail(lease, LeaseCloseReason.CONNECT_FAILED)

    def _lose(self, a: int, b: int) -> None:
        lease = self._some_upstream(a, ready=True)
        if lease is not None:
            self._fail(lease, LeaseCloseReason.REMOTE_CLOSE)

    def _reset_client(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None:
            del self.clients[session]
            self.engine.session_closed(session)

    def _end_client(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None and not self.clients[session].paused:
            self.clients[session].may_be_closed = True
            self.engine.session_data(session, [], end_stream=True)

    def _garbage(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None and not self.clients[session].paused:
            self.clients[session].may_be_closed = True
            self.engine.session_data(session, [bytes([b % 0xDA]) * 40])

    def _server_garbage(self, a: int, b: int) -> None:
        lease = self._some_upstream(a, ready=True)
        if lease is None:
            return
        self.lost_tokens = set(self.upstreams[lease].tokens)
        self.engine.lease_data(lease, [bytes([b % 0xDA]) * 40])
        self.lost_tokens = None
        self._send_unsent()

    def _time(self, a: int, b: int) -> None:
        self.engine.advance(1000 * (a + 1))
        self._send_unsent()

    def _long_time(self, a: int, b: int) -> None:
        self.engine.advance(TIMEOUT_US + 10_000)
        self._send_unsent()

    def _routes(self, a: int, b: int) -> None:
        self._config.update(config(self.mode, a))

    def _hosts(self, a: int, b: int) -> None:
        hosts = [(host, 1, not b & (1 << i)) for i, host in enumerate(HOSTS) if a & (1 << i)]
        self.engine.set_cluster("one", self._generation, "{}", hosts)
        self._send_unsent()

    def _cluster(self, a: int, b: int) -> None:
        if a % 3 == 0:
            self.engine.remove_cluster("one", self._generation)
        else:
            self._generation += 1
            hosts = [(host, 1, True) for host in HOSTS]
            self.engine.set_cluster("one", self._generation, "{}", hosts)
        self._send_unsent()

    def _unread(self, a: int, b: int) -> None:
        session = self._some_client(a)
        if session is not None:
            self.engine.session_write_buffer_full(session, True)

    def _read(self, a: int, b: int) -> None:
        for session in list(self.clients):
            self.engine.session_write_buffer_full(session, False)
        self._send_unsent()

    # --- the end

    def finish(self) -> None:
        """Everything that is under way ends; then nothing may be left."""
        for _ in range(200):
            self._read(0, 0)
            for lease in [key for key, upstream in self.upstreams.items() if not upstream.ready]:
                if lease in self.upstreams:
                    self.upstreams[lease].ready = True
                    self.engine.lease_ready(lease)
            for lease in list(self.upstreams):
                while lease in self.upstreams and self.upstreams[lease].owed:
                    number, token = self.upstreams[lease].owed.pop(0)
                    self.engine.lease_data(lease, [response(number, token)])
            self._send_unsent()
            if not any(client.waiting for client in self.clients.values()):
                break
            self.engine.advance(TIMEOUT_US // 20)
        for session, client in self.clients.items():
            assert not client.waiting, f"session {session} waits for {client.waiting} for ever"
            assert not client.paused, f"session {session} is paused for ever"
            assert client.received == b""
        for token in self.one_way_tokens:
            assert self.forwarded[token] <= 1
        for session in list(self.clients):
            del self.clients[session]
            self.engine.session_closed(session)
        self.engine.advance(60 * SECOND)
        self.engine.flush_metrics()
        assert self.engine.exchanges_open == 0
        assert self.engine.sessions_open == 0
        assert not self.upstreams, "leases are never given back"
        assert not any(self.gauges.values()), self.gauges
