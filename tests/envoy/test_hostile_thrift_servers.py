"""What Thrift servers may do wrong: it costs the calls on that connection, and nothing else.

Nothing but their order and a sequence id tells a Thrift server's replies apart, so whatever does
not fit ends the connection it came on.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest

pytest.importorskip("thrift")
pytest.importorskip("thriftpy2")

from metaprotocol.config.v1 import Condition, Limits, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.thrift import GreeterHandler
from metaprotocol.peers.thrift.server import ThreadedServer
from metaprotocol.peers.thrift.thriftpy import ApplicationError, ThriftPyServer, thriftpy_client

from tests.testkit.stage import Metrics, proxy, running_envoy

STRICT = 0x80010000
CALL, REPLY = 1, 2


def message(sequence_id: int, body: bytes, kind: int = REPLY, name: bytes = b"greet") -> bytes:
    head = struct.pack(">II", STRICT | kind, len(name)) + name + struct.pack(">I", sequence_id)
    return struct.pack(">I", len(head) + len(body)) + head + body


def greeting(sequence_id: int, text: bytes = b"hello") -> bytes:
    return message(sequence_id, b"\x0b\x00\x00" + struct.pack(">I", len(text)) + text + b"\x00")


@dataclass
class Answer:
    """What a bad server writes, and what it does then."""

    data: bytes
    end: str = ""  # "close" or "reset"


class BadServer(ThreadedServer):
    """Reads framed requests, and answers each as the test says."""

    def __init__(self) -> None:
        super().__init__(self._serve_connection)
        self.behaviour: Callable[[int], Answer] = lambda number: Answer(greeting(number))

    def _serve_connection(self, connection: socket.socket) -> None:
        while size := connection.recv(4, socket.MSG_WAITALL):
            request = connection.recv(struct.unpack(">I", size)[0], socket.MSG_WAITALL)
            (name_bytes,) = struct.unpack_from(">I", request, 4)
            (sequence_id,) = struct.unpack_from(">I", request, 8 + name_bytes)
            answer = self.behaviour(sequence_id)
            connection.sendall(answer.data)
            if answer.end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if answer.end:
                return


@dataclass
class Stage:
    envoy: EnvoyProcess
    port: int
    bad: BadServer

    def bad_total(self, metric: str) -> int:
        return Metrics(self.envoy).total(metric, cluster="bad")


@pytest.fixture(scope="module")
def stage(builder: ConfigBuilder) -> Iterator[Stage]:
    with ExitStack() as stack:
        bad = stack.enter_context(BadServer())
        good = stack.enter_context(ThriftPyServer({"": GreeterHandler("good")}))
        routes = [
            Route(match=[Condition(key="method", exact="greet")], cluster="bad",
                  timeout=timedelta(seconds=3)),
            Route(cluster="good"),
        ]  # fmt: skip
        filters = proxy("thrift", *routes, limits=Limits(max_message_bytes=1 << 20))
        bootstrap = Bootstrap(
            [MetaProtocolListener("thrift", filters)],
            [
                Cluster("bad", [Host("127.0.0.1", bad.port)]),
                Cluster("good", [Host("127.0.0.1", good.port)]),
            ],
        )
        envoy = stack.enter_context(running_envoy(builder, bootstrap))
        yield Stage(envoy, envoy.listener_port("thrift"), bad)


@pytest.fixture(autouse=True)
def _others(stage: Stage) -> Iterator[None]:
    """A client of the good server on the same listener, whose calls must not fail."""
    stop = threading.Event()
    failures: list[BaseException] = []
    made = 0

    def run() -> None:
        nonlocal made
        try:
            with thriftpy_client(stage.port) as client:
                while not stop.is_set():
                    assert client.add(40, 2) == 42
                    made += 1
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    wanted = made + 10
    until(lambda: failures or made >= wanted)
    stop.set()
    thread.join()
    assert failures == []


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_that_the_call_fails(stage: Stage) -> None:
    """Before its time is over, with a TApplicationException; the client's connection and the server
    stay usable."""
    with thriftpy_client(stage.port) as client:
        with pytest.raises(ApplicationError) as raised:
            client.greet("you")
        assert raised.value.type == ApplicationError.INTERNAL_ERROR
        assert "upstream" in str(raised.value.message)
        assert "timeout" not in str(raised.value.message)
        assert client.add(40, 2) == 42
        stage.bad.behaviour = lambda number: Answer(greeting(number))
        assert client.greet("you") == "hello"


GARBAGE = {
    "http": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": lambda _: bytes(64),
    "ones": lambda _: b"\xff" * 64,
    "negative length": lambda number: b"\xff\xff\xff\xf0" + greeting(number)[4:],
    "message type 9": lambda number: message(number, b"\x00", kind=9),
    "name longer than the frame": lambda number: (
        greeting(number)[:8] + b"\x00\xff\xff\xff" + greeting(number)[12:]
    ),
    "bad utf-8": lambda number: message(number, b"\x00", name=b"gr\xff\xfet"),
    "no struct": lambda number: message(number, b""),
}


@pytest.mark.parametrize("make", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_from_a_server_is_an_error_of_its_call(
    stage: Stage, make: Callable[[int], bytes]
) -> None:
    before = stage.bad_total("upstream_malformed")
    stage.bad.behaviour = lambda number: Answer(make(number))
    check_that_the_call_fails(stage)
    until(lambda: stage.bad_total("upstream_malformed") == before + 1)


def test_a_reply_over_the_limit_is_told_as_such(stage: Stage) -> None:
    stage.bad.behaviour = lambda number: Answer(
        struct.pack(">I", (1 << 20) + 1) + greeting(number)[4:]
    )
    with thriftpy_client(stage.port) as client:
        with pytest.raises(ApplicationError, match="larger than the limit") as raised:
            client.greet("you")
        assert raised.value.type == ApplicationError.PROTOCOL_ERROR
        assert client.add(40, 2) == 42


def test_another_calls_reply_is_an_error_of_the_call(stage: Stage) -> None:
    before = stage.bad_total("unsolicited")
    stage.bad.behaviour = lambda number: Answer(greeting(number ^ 1))
    check_that_the_call_fails(stage)
    until(lambda: stage.bad_total("unsolicited") == before + 1)


def test_another_calls_reply_before_the_right_one_ends_the_connection(stage: Stage) -> None:
    before = stage.bad_total("unsolicited"), stage.bad.accepted
    stage.bad.behaviour = lambda number: Answer(greeting(number ^ 1, b"bad") + greeting(number))
    with thriftpy_client(stage.port) as client:
        assert client.greet("you") == "hello"
        assert client.greet("you") == "hello"
    until(lambda: stage.bad_total("unsolicited") == before[0] + 2)
    assert stage.bad.accepted > before[1], "the second call was not made on the first one's"


def test_a_call_of_a_server_is_not_passed_to_clients(stage: Stage) -> None:
    before = stage.bad_total("unsolicited")
    stage.bad.behaviour = lambda number: Answer(
        message(number, b"\x00", kind=CALL) + greeting(number)
    )
    with thriftpy_client(stage.port) as client:
        assert client.greet("you") == "hello"
    until(lambda: stage.bad_total("unsolicited") == before + 1)


def test_a_second_reply_reaches_nobody(stage: Stage) -> None:
    stage.bad.behaviour = lambda number: Answer(greeting(number) + greeting(number, b"again"))
    accepted = stage.bad.accepted
    with thriftpy_client(stage.port) as client:
        assert [client.greet("you") for _ in range(5)] == ["hello"] * 5
    assert stage.bad.accepted >= accepted + 4, "none of those connections is used again"


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_reply_cut_anywhere_is_an_error_of_its_call(stage: Stage, end: str) -> None:
    whole = len(greeting(0))
    length = 0
    stage.bad.behaviour = lambda number: Answer(greeting(number)[:length], end)
    with thriftpy_client(stage.port) as client:
        while length < whole:
            with pytest.raises(ApplicationError) as raised:
                client.greet("you")
            assert raised.value.type == ApplicationError.INTERNAL_ERROR
            length += 1
        if end == "close":
            assert client.greet("you") == "hello"
    until(lambda: Metrics(stage.envoy).total("exchanges_active", cluster="bad") == 0)


def test_a_server_that_never_answers_costs_a_timeout(stage: Stage) -> None:
    stage.bad.behaviour = lambda _: Answer(b"")
    with thriftpy_client(stage.port) as client:
        with pytest.raises(ApplicationError, match="timeout") as raised:
            client.greet("you")
        assert raised.value.type == ApplicationError.INTERNAL_ERROR
        assert client.add(40, 2) == 42
        stage.bad.behaviour = lambda number: Answer(greeting(number))
        assert client.greet("you") == "hello"
