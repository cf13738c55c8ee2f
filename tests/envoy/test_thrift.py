"""Thrift through Envoy: every transport and protocol, with two independent libraries."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("thrift")
pytest.importorskip("thriftpy2")

from metaprotocol.config.v1 import Condition, DirectReply, KeyValue, Mutation, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.thrift import Encoding, Framing, GreeterHandler, Refusal
from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer
from metaprotocol.peers.thrift.apache import ApplicationError as ApacheError
from metaprotocol.peers.thrift.server import Record
from metaprotocol.peers.thrift.thriftpy import ApplicationError as ThriftPyError
from metaprotocol.peers.thrift.thriftpy import ThriftPyServer, greeter, thriftpy_client

from tests.testkit.stage import proxy, running_envoy

Dialect = tuple[Framing, Encoding]
DIALECTS: list[Dialect] = [(framing, encoding) for framing in Framing for encoding in Encoding]
WITHOUT_HEADER = [dialect for dialect in DIALECTS if dialect[0] is not Framing.HEADER]
RECORD = Record("name", list(range(-5, 5)), {"key": "värde"}, True, 0.5)


def label(dialect: Dialect) -> str:
    return f"{dialect[0].value}-{dialect[1].value}"


def routes(dialect: str) -> list[Route]:
    a, b = f"{dialect}-a", f"{dialect}-b"
    return [
        Route(name="none", match=[Condition(key="service", exact="nowhere")],
              direct_reply=DirectReply(kind="denied", text="not for you")),
        Route(name="service", match=[Condition(key="service", exact="second")], cluster=b),
        Route(name="header", match=[Condition(key="tenant", exact="blue")], cluster=b),
        Route(name="mutated", match=[Condition(key="mutate", present=True)], cluster=a,
              request_mutation=[Mutation(set=KeyValue(key="added", value="yes")),
                                Mutation(remove="mutate")],
              response_mutation=[Mutation(set=KeyValue(key="proxied", value="yes"))]),
        Route(name="store", match=[Condition(key="method", exact="store")], cluster=b),
        Route(name="hasty", match=[Condition(key="service", exact="hasty")], cluster=a,
              timeout=timedelta(seconds=0.8)),
        Route(name="greet", match=[Condition(key="method", exact="greet")], cluster=a),
        Route(name="note", match=[Condition(key="method", prefix="no")], cluster=a),
    ]  # fmt: skip


@dataclass
class Stage:
    envoy: EnvoyProcess
    ports: dict[str, int]
    handlers: dict[str, GreeterHandler]
    servers: dict[str, ApacheServer | ThriftPyServer]

    def port(self, dialect: Dialect) -> int:
        return self.ports[label(dialect)]


@pytest.fixture(scope="module")
def stage(builder: ConfigBuilder) -> Iterator[Stage]:
    with ExitStack() as stack:
        handlers: dict[str, GreeterHandler] = {}
        servers: dict[str, ApacheServer | ThriftPyServer] = {}
        listeners, clusters = [], []
        for dialect in DIALECTS:
            name = label(dialect)
            for suffix in "ab":
                cluster = f"{name}-{suffix}"
                handler = handlers[cluster] = GreeterHandler(suffix)
                services = dict.fromkeys(("", "first", "second", "hasty"), handler)
                reply_headers = {"from": suffix} if dialect[0] is Framing.HEADER else {}
                server = ApacheServer(services, *dialect, reply_headers=reply_headers)
                servers[cluster] = stack.enter_context(server)
                clusters.append(Cluster(cluster, [Host("127.0.0.1", server.port)]))
            listeners.append(MetaProtocolListener(name, proxy("thrift", *routes(name), name=name)))
        plain = stack.enter_context(ThriftPyServer({"": GreeterHandler("thriftpy")}))
        clusters.append(Cluster("thriftpy", [Host("127.0.0.1", plain.port)]))
        listeners.append(
            MetaProtocolListener("thriftpy", proxy("thrift", Route(cluster="thriftpy")))
        )
        compressing = stack.enter_context(
            ApacheServer({"": GreeterHandler("zlib")}, Framing.HEADER, compressed=True)
        )
        clusters.append(Cluster("zlib", [Host("127.0.0.1", compressing.port)]))
        listeners.append(
            MetaProtocolListener("zlib", proxy("thrift", Route(cluster="zlib"), name="zlib"))
        )
        envoy = stack.enter_context(running_envoy(builder, Bootstrap(listeners, clusters)))
        ports = {listener.name: envoy.listener_port(listener.name) for listener in listeners}
        yield Stage(envoy, ports, handlers, servers)


@pytest.mark.parametrize("dialect", DIALECTS, ids=label)
def test_apache_clients_are_routed_by_method(stage: Stage, dialect: Dialect) -> None:
    with ApacheClient(stage.port(dialect), *dialect) as client:
        assert client.greet("you") == "a greets you"
        assert client.store(RECORD) == RECORD
        assert client.greet("ü" * 50_000) == "a greets " + "ü" * 50_000
        with pytest.raises(Refusal, match="a refuses"):
            client.greet("refuse")
        assert client.greet("again") == "a greets again"


@pytest.mark.parametrize("dialect", WITHOUT_HEADER, ids=label)
def test_thriftpy2_clients_are_routed_by_method(stage: Stage, dialect: Dialect) -> None:
    with thriftpy_client(stage.port(dialect), *dialect) as client:
        assert client.greet("you") == "a greets you"
        assert vars(client.store(greeter.Record(**vars(RECORD)))) == vars(RECORD)
        with pytest.raises(greeter.Refused):
            client.greet("refuse")
        assert client.greet("again") == "a greets again"


def test_a_thriftpy2_server_is_understood(stage: Stage) -> None:
    for open_client in (ApacheClient, thriftpy_client):
        with open_client(stage.ports["thriftpy"]) as client:
            assert client.greet("you") == "thriftpy greets you"
            assert client.add(40, 2) == 42


@pytest.mark.parametrize("dialect", DIALECTS, ids=label)
def test_multiplexed_services_are_routed_by_name(stage: Stage, dialect: Dialect) -> None:
    for service, who in (("first", "a"), ("second", "b")):
        with ApacheClient(stage.port(dialect), *dialect, service=service) as client:
            assert client.greet("you") == f"{who} greets you"


@pytest.mark.parametrize("dialect", WITHOUT_HEADER, ids=label)
def test_thriftpy2s_multiplexed_services_are_routed_by_name(stage: Stage, dialect: Dialect) -> None:
    with thriftpy_client(stage.port(dialect), *dialect, service="second") as client:
        assert client.greet("you") == "b greets you"


@pytest.mark.parametrize("dialect", DIALECTS, ids=label)
def test_errors_of_the_proxy_are_application_errors(stage: Stage, dialect: Dialect) -> None:
    with ApacheClient(stage.port(dialect), *dialect) as client:
        with pytest.raises(ApacheError) as unknown:
            client.add(1, 2)
        assert unknown.value.type == ApacheError.INTERNAL_ERROR
        assert client.greet("you") == "a greets you", "the connection is still good"
    with ApacheClient(stage.port(dialect), *dialect, service="hasty") as client:
        with pytest.raises(ApacheError, match="timeout") as late:
            client.greet("slow 1.5")
        assert late.value.type == ApacheError.INTERNAL_ERROR
        assert client.greet("you") == "a greets you", "the connection is still good"
    with (
        ApacheClient(stage.port(dialect), *dialect, service="nowhere") as client,
        pytest.raises(ApacheError, match="not for you"),
    ):
        client.greet("you")


@pytest.mark.parametrize("dialect", WITHOUT_HEADER, ids=label)
def test_thriftpy2_raises_the_proxys_errors(stage: Stage, dialect: Dialect) -> None:
    with thriftpy_client(stage.port(dialect), *dialect) as client:
        with pytest.raises(ThriftPyError) as unknown:
            client.add(1, 2)
        assert unknown.value.type == ThriftPyError.INTERNAL_ERROR
        assert client.greet("you") == "a greets you"


@pytest.mark.parametrize("dialect", DIALECTS, ids=label)
def test_a_one_way_call_arrives_once_and_is_not_answered(stage: Stage, dialect: Dialect) -> None:
    handler = stage.handlers[f"{label(dialect)}-a"]
    with ApacheClient(stage.port(dialect), *dialect) as client:
        for number in range(3):
            client.note(f"note {number}")
            assert client.greet("you") == "a greets you"
    deadline = time.monotonic() + 10
    while len(handler.notes) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    # They may have gone over different connections, so their order is open.
    assert sorted(handler.notes) == ["note 0", "note 1", "note 2"]


@pytest.mark.parametrize("dialect", DIALECTS, ids=label)
def test_replies_come_back_in_order_with_the_clients_own_ids(
    stage: Stage, dialect: Dialect
) -> None:
    with ApacheClient(stage.port(dialect), *dialect) as client:
        sent = [(7, "one"), (7, "slow 0.1"), (-3, "three"), (0x7FFFFFFF, "four"), (7, "five")]
        for sequence_id, name in sent:
            client.send("greet", sequence_id, name=name)
        received = [client.receive("greet") for _ in sent]
    assert received == [(sequence_id, f"a greets {name}") for sequence_id, name in sent]


@pytest.mark.parametrize("dialect", WITHOUT_HEADER, ids=label)
def test_many_clients_with_the_same_ids_each_get_their_own_replies(
    stage: Stage, dialect: Dialect
) -> None:
    failures: list[object] = []

    def run(number: int) -> None:
        try:
            # thriftpy2 numbers every call 0.
            with thriftpy_client(stage.port(dialect), *dialect) as client:
                for call in range(50):
                    name = f"{number}/{call}"
                    if (answer := client.greet(name)) != f"a greets {name}":
                        failures.append((name, answer))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("encoding", list(Encoding))
def test_headers_are_routed_by_and_rewritten(stage: Stage, encoding: Encoding) -> None:
    dialect = (Framing.HEADER, encoding)
    server: Any = stage.servers[f"{label(dialect)}-a"]
    with ApacheClient(stage.port(dialect), *dialect) as client:
        client.headers = {"tenant": "blue"}
        assert client.greet("you") == "b greets you"
        assert client.last_headers == {"from": "b"}
        client.headers = {"mutate": "1", "other": "o"}
        assert client.greet("you") == "a greets you"
        assert server.last_headers == {"other": "o", "added": "yes"}
        assert client.last_headers == {"from": "a", "proxied": "yes"}
        client.headers = {"other": "o"}
        assert client.greet("you") == "a greets you"
        assert server.last_headers == {"other": "o"}
        assert client.last_headers == {"from": "a"}


@pytest.mark.parametrize("encoding", list(Encoding))
def test_compressed_messages_are_routed_by_what_is_in_them(
    stage: Stage, encoding: Encoding
) -> None:
    dialect = (Framing.HEADER, encoding)
    server: Any = stage.servers[f"{label(dialect)}-a"]
    text = "ü" * 300_000
    with ApacheClient(stage.port(dialect), *dialect, compressed=True) as client:
        assert client.greet("you") == "a greets you"
        assert client.store(RECORD) == RECORD
        assert client.greet(text) == f"a greets {text}"
        client.headers = {"mutate": "1"}
        assert client.greet("you") == "a greets you"
        assert server.last_headers == {"added": "yes"}
        with pytest.raises(Refusal, match="a refuses"):
            client.greet("refuse")
        client.note("one way")
        assert client.greet("again") == "a greets again"
    for compressed in (False, True):
        with ApacheClient(stage.ports["zlib"], *dialect, compressed=compressed) as client:
            assert client.greet("you") == "zlib greets you"
            assert client.greet(text) == f"zlib greets {text}"
            with pytest.raises(Refusal, match="zlib refuses"):
                client.greet("refuse")


def test_old_binary_messages_are_understood(stage: Stage) -> None:
    """Without the version word: name, type, sequence id (thrift-binary-protocol.md)."""
    dialect = (Framing.FRAMED, Encoding.BINARY)
    arguments = b"\x0b\x00\x01" + struct.pack(">i", 3) + b"you" + b"\x00"
    message = struct.pack(">i", 5) + b"greet" + b"\x01" + struct.pack(">i", 42) + arguments
    with socket.create_connection(("127.0.0.1", stage.port(dialect)), 10) as connection:
        connection.sendall(struct.pack(">i", len(message)) + message)
        (length,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
        reply = connection.recv(length, socket.MSG_WAITALL)
    assert b"a greets you" in reply
    assert struct.pack(">i", 42) in reply
