"""What authorization policies deny reaches no server, however a call is written."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from metaprotocol import Proxy
from metaprotocol.dubbo.frames import Status
from metaprotocol.dubbo.hessian2 import encode

HOST = "orders.shop.svc.cluster.local"
INTERFACE = "org.example.Orders"
HEAD = struct.Struct(">HBBQI")
CALL, TWO_WAY, HESSIAN2 = 0x80, 0x40, 2
KRYO, PROTOBUF, FASTJSON2, UNKNOWN = 8, 22, 23, 31


class Counting:
    """Closes each connection as soon as it has brought anything, and counts those."""

    def __init__(self) -> None:
        self.calls = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            if connection.recv(1 << 16):
                self.calls += 1


class RawProvider(Counting):
    """Answers whatever has a Dubbo header, and counts it."""

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while len(head := stream.read(HEAD.size)) == HEAD.size:
                _, _, _, number, size = HEAD.unpack(head)
                stream.read(size)
                self.calls += 1
                connection.sendall(frame(HESSIAN2, number, b"\x91\x02ok", Status.OK))


def frame(flags: int, number: int, body: bytes, status: int = 0) -> bytes:
    return HEAD.pack(0xDABB, flags, status, number, len(body)) + body


def call(
    method: str,
    serialization: int = HESSIAN2,
    interface: str = INTERFACE,
    types: str = "",
    arguments: bytes = b"",
    **attachments: str,
) -> bytes:
    """In a serialization that the proxy does not read it is the same bytes: it does not look."""
    body = encode("2.0.2", interface, "1.0.0", method, types) + arguments + encode(attachments)
    return frame(CALL | TWO_WAY | serialization, 7, body)


def generic(method: str, name: str = "$invoke") -> bytes:
    types = "Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;"
    return call(name, types=types, arguments=encode(method, None, None), generic="true")


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with closing(RawProvider()) as provider:
        yield provider


class Stage:
    def __init__(self, port: int, provider: RawProvider) -> None:
        self.port = port
        self.provider = provider

    def passes(self, request: bytes) -> bool:
        """Whether the server has seen it; the client is told the same."""
        before = self.provider.calls
        with socket.create_connection(("127.0.0.1", self.port), 10) as client:
            client.sendall(request)
            with client.makefile("rb") as stream:
                _, _, status, number, _ = HEAD.unpack(stream.read(HEAD.size))
        passed = self.provider.calls > before
        assert (number, status == Status.OK) == (7, passed)
        return passed


def mesh(folder: Path, port: int, *policies: str) -> Path:
    path = folder / "mesh.yaml"
    text = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: orders, namespace: shop}}
spec:
  hosts: [{HOST}]
  ports: [{{number: 20880, name: tcp-metaprotocol-dubbo}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{tcp-metaprotocol-dubbo: {port}}}}}]
"""
    for number, spec in enumerate(policies):
        text += f"""---
apiVersion: dubbo.aeraki.io/v1alpha1
kind: DubboAuthorizationPolicy
metadata: {{name: policy-{number}, namespace: shop}}
spec: {spec}
"""
    path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def proxy(provider: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(mesh(tmp_path_factory.mktemp("mesh"), provider.port)) as proxy:
        yield proxy


def stage(proxy: Proxy, provider: RawProvider, folder: Path, *policies: str) -> Stage:
    proxy.update(mesh(folder, provider.port, *policies))
    return Stage(proxy.port(HOST, 20880), provider)


def test_a_denied_method_is_denied_in_any_serialization_and_as_a_generic_call(
    proxy: Proxy, provider: RawProvider, tmp_path: Path
) -> None:
    policy = '{action: DENY, rules: [{to: [{operation: {methods: ["delete*"]}}]}]}'
    here = stage(proxy, provider, tmp_path, policy)
    assert here.passes(call("getOne"))
    assert here.passes(generic("getOne"))
    assert not here.passes(call("deleteAll"))
    for serialization in (KRYO, PROTOBUF, FASTJSON2, UNKNOWN):
        assert not here.passes(call("deleteAll", serialization))
    assert not here.passes(generic("deleteAll"))
    assert not here.passes(generic(" deleteAll ", "$invokeAsync"))


def test_what_is_allowed_but_for_some_is_not_allowed_if_it_cannot_be_read(
    proxy: Proxy, provider: RawProvider, tmp_path: Path
) -> None:
    policy = "{rules: [{to: [{operation: {notMethods: [deleteAll]}}]}]}"
    here = stage(proxy, provider, tmp_path, policy)
    assert here.passes(call("getOne"))
    for hidden in (call("deleteAll"), call("deleteAll", KRYO), generic("deleteAll")):
        assert not here.passes(hidden)


def test_an_interface_is_denied_where_the_attachment_path_names_it(
    proxy: Proxy, provider: RawProvider, tmp_path: Path
) -> None:
    """Dubbo for Java serves that interface."""
    secret = "org.example.Secret"
    denied = f"{{action: DENY, rules: [{{to: [{{operation: {{interfaces: [{secret}]}}}}]}}]}}"
    allowed = f"{{rules: [{{to: [{{operation: {{interfaces: [{INTERFACE}]}}}}]}}]}}"
    for policy in (denied, allowed):
        here = stage(proxy, provider, tmp_path, policy)
        assert here.passes(call("getOne"))
        assert here.passes(call("getOne", path=INTERFACE))
        assert not here.passes(call("getOne", interface=secret))
        assert not here.passes(call("getOne", path=secret))


def test_what_cannot_be_read_passes_where_nothing_depends_on_it(
    proxy: Proxy, provider: RawProvider, tmp_path: Path
) -> None:
    of_a_client = "from: [{source: {namespaces: [stranger]}}]"
    to_delete = "to: [{operation: {methods: [deleteAll]}}]"
    others = f"{{action: DENY, rules: [{{{of_a_client}, {to_delete}}}]}}"
    here = stage(proxy, provider, tmp_path, others)
    assert here.passes(call("getOne", KRYO))
    here = stage(proxy, provider, tmp_path, others, "{rules: [{}]}")
    assert here.passes(call("getOne", KRYO))
    here = stage(proxy, provider, tmp_path, f"{{rules: [{{{to_delete}}}]}}", others)
    assert not here.passes(call("deleteAll", KRYO))


# --- other protocols


def varint(number: int) -> bytes:
    out = b""
    while number >= 128:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: int | bytes | str) -> bytes:
    """A protobuf field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def thrift(name: str) -> bytes:
    message = struct.pack(">II", 0x80010001, len(name)) + name.encode() + b"\0\0\0\7\0"
    return struct.pack(">I", len(message)) + message


def brpc(service: str, method: str, user: str = "") -> bytes:
    meta = field(1, field(1, service) + field(2, method)) + field(4, 7)
    meta += field(9, field(1, "method") + field(2, user)) if user else b""
    return b"PRPC" + struct.pack(">II", len(meta), len(meta)) + meta


def trpc(func: str, transferred: str = "") -> bytes:
    head = field(3, 7) + field(7, func)
    head += field(9, field(1, "method") + field(2, transferred)) if transferred else b""
    return struct.pack(">HBBIHIBB", 0x0930, 0, 0, 16 + len(head), len(head), 7, 1, 0) + head


def trpc_stream(func: str) -> bytes:
    init = field(1, field(3, func))
    return struct.pack(">HBBIHIBB", 0x0930, 1, 1, 16 + len(init), 0, 7, 1, 0) + init


OTHERS = {
    "thrift": (
        [thrift("get"), thrift("Orders:get")],
        [
            thrift(name)
            for name in (
                *("refund", "Orders:refund", "Orders::refund", "Orders:refund:"),
                *("Orders:refund:x", ":refund", "refund:", "::refund"),
            )
        ],
    ),
    "brpc": (
        [brpc("a.b.Orders", "get"), brpc("a.b", "Orders.get")],
        [
            brpc("a.b.Orders", "refund"),
            brpc("a.b", "Orders.refund"),
            brpc("a.b.orders", "REFUND"),
            brpc("Orders", "refund"),
            brpc("a.b.Orders", "refund", "get"),
        ],
    ),
    "trpc": (
        [trpc("/a.Orders/get"), trpc("/a.Orders/get", "refund")],
        [
            trpc("/a.Orders/refund"),
            trpc("/a.Orders/refund", "get"),
            trpc("xa.Orders/refund"),
            trpc("refund"),
            trpc_stream("/a.Orders/refund"),
        ],
    ),
}


@pytest.mark.parametrize("protocol", OTHERS)
def test_a_denied_method_reaches_no_server_by_any_of_its_names(
    proxy: Proxy, tmp_path: Path, protocol: str
) -> None:
    allowed, denied = OTHERS[protocol]
    with closing(Counting()) as server:

        def passes(request: bytes) -> bool:
            before = server.calls
            with socket.create_connection(("127.0.0.1", proxy.port(HOST, 20880)), 10) as client:
                client.sendall(request)
                client.recv(1 << 16)
            return server.calls > before

        for spec in (
            "{action: DENY, rules: [{to: [{operation: {methods: [refund]}}]}]}",
            "{rules: [{to: [{operation: {methods: [get]}}]}]}",
        ):
            path = mesh(tmp_path, server.port, spec) / "mesh.yaml"
            path.write_text(
                path.read_text()
                .replace("tcp-metaprotocol-dubbo", f"tcp-metaprotocol-{protocol}")
                .replace("dubbo.aeraki.io/v1alpha1", "security.istio.io/v1")
                .replace("DubboAuthorizationPolicy", "AuthorizationPolicy")
            )
            proxy.update(tmp_path)
            for request in allowed:
                assert passes(request), request
            for request in denied:
                assert not passes(request), request
