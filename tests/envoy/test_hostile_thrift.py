"""What Thrift clients may do wrong, while others make calls on the same listener."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest

pytest.importorskip("thrift")
pytest.importorskip("thriftpy2")

from metaprotocol.config.v1 import Limits, Route
from metaprotocol.envoy.config import Bootstrap, Cluster, ConfigBuilder, Host, MetaProtocolListener
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.peers.thrift import Framing, GreeterHandler
from metaprotocol.peers.thrift.thriftpy import ThriftPyServer, thriftpy_client

from tests.testkit.stage import Metrics, proxy, running_envoy

STRICT = 0x80010000
PROTOCOL_ERROR, INVALID_TRANSFORM = 7, 8
IMPATIENT = Limits(
    max_requests_in_flight=10,
    slow_client_timeout=timedelta(seconds=1),
    message_timeout=timedelta(seconds=0.7),
)


@dataclass
class Stage:
    envoy: EnvoyProcess
    ports: dict[str, int]
    handlers: dict[str, GreeterHandler]

    @property
    def framed(self) -> int:
        return self.ports["framed"]

    @property
    def unframed(self) -> int:
        return self.ports["unframed"]

    def malformed(self) -> int:
        return Metrics(self.envoy).total("downstream_malformed")

    def impatient(self, metric: str) -> int:
        return Metrics(self.envoy).total(metric, protocol="impatient")


@pytest.fixture(scope="module")
def stage(builder: ConfigBuilder) -> Iterator[Stage]:
    with ExitStack() as stack:
        handlers, clusters, listeners = {}, [], []
        for framing in (Framing.FRAMED, Framing.UNFRAMED):
            # Those whose server nobody else uses are "alone".
            for name in (framing.value, f"{framing.value}-alone"):
                handler = handlers[name] = GreeterHandler("a")
                server = stack.enter_context(ThriftPyServer({"": handler}, framing))
                clusters.append(Cluster(name, [Host("127.0.0.1", server.port)]))
                limits = Limits(max_message_bytes=1 << 20)
                filters = proxy("thrift", Route(cluster=name), name=name, limits=limits)
                if name.endswith("alone"):
                    # A server that takes the next message for the rest of a broken one never
                    # answers.
                    filters.default_timeout.FromTimedelta(timedelta(seconds=3))
                listeners.append(MetaProtocolListener(name, filters))
        filters = proxy("thrift", Route(cluster="framed"), name="impatient", limits=IMPATIENT)
        listeners.append(MetaProtocolListener("impatient", filters))
        envoy = stack.enter_context(running_envoy(builder, Bootstrap(listeners, clusters)))
        ports = {listener.name: envoy.listener_port(listener.name) for listener in listeners}
        yield Stage(envoy, ports, handlers)


@pytest.fixture(autouse=True)
def _others(stage: Stage) -> Iterator[None]:
    """Clients of both listeners, whose calls must not fail."""
    stop = threading.Event()
    failures: list[BaseException] = []
    made = [0, 0]

    def run(index: int, port: int, framing: Framing) -> None:
        try:
            with thriftpy_client(port, framing) as client:
                while not stop.is_set():
                    assert client.greet("you") == "a greets you"
                    made[index] += 1
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(0, stage.framed, Framing.FRAMED)),
        threading.Thread(target=run, args=(1, stage.unframed, Framing.UNFRAMED)),
    ]
    for thread in threads:
        thread.start()
    yield
    wanted = [count + 10 for count in made]
    until(lambda: failures or all(a >= b for a, b in zip(made, wanted, strict=True)))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def framed(message: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", len(message) if length is None else length) + message


def call(arguments: bytes = b"\x00", name: bytes = b"greet", kind: int = 1) -> bytes:
    return struct.pack(">II", STRICT | kind, len(name)) + name + struct.pack(">I", 1) + arguments


ARGUMENT = b"\x0b\x00\x01\x00\x00\x00\x03you\x00"
NESTED = b"\x0c\x00\x01"  # field 1, a struct
# Nothing in these says what a reply should look like.
FOREIGN = {
    "http": b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    "ones": b"\xff" * 64,
    "negative length": framed(call(), length=0xFFFFFFF0),
}
FRAMED = {
    "zeros": bytes(64),
    "empty frame": framed(b"") + framed(call()),
    "over the limit": framed(call(), length=(1 << 20) + 1),
    "other version": framed(struct.pack(">I", 0x80020001) + call()[4:]),
    "message type 0": framed(call(kind=0)),
    "message type 9": framed(call(kind=9)),
    "name longer than the frame": framed(struct.pack(">II", STRICT | 1, 0x7FFFFFFF) + b"x"),
    "negative name": framed(struct.pack(">II", STRICT | 1, 0xFFFFFFFF) + b"x" * 8),
    "bad utf-8": framed(call(name=b"gr\xff\xfet")),
    "compact with a wrong version": framed(b"\x82\x3f\x01\x05greet\x00"),
    "header cut": framed(struct.pack(">HHIH", 0x0FFF, 0, 1, 0xFFFF) + b"x" * 10),
    "header with an unknown transform": framed(
        struct.pack(">HHIH", 0x0FFF, 0, 1, 1) + b"\x00\x01\x63\x00" + call()
    ),
    "compressed 1000 times": framed(
        struct.pack(">HHIH", 0x0FFF, 0, 1, 1) + b"\x00\x01\x01\x00" + zlib.compress(bytes(64 << 20))
    ),
}
UNFRAMED = {
    "unknown field type": call(b"\x63\x00\x01" + bytes(8)),
    "string of two thousand million": call(b"\x0b\x00\x01\x7f\xff\xff\xff"),
    "string of negative length": call(b"\x0b\x00\x01\xff\xff\xff\xff"),
    "list of two thousand million": call(b"\x0f\x00\x01\x0a\x7f\xff\xff\xff"),
    "list of negative length": call(b"\x0f\x00\x01\x0a\xff\xff\xff\xff"),
    "map of unknown types": call(b"\x0d\x00\x01\x63\x63\x00\x00\x00\x02" + bytes(8)),
    "deep nesting": call(NESTED * 100_000),
    "deep lists": call(b"\x0f\x00\x01" + b"\x0f\x00\x00\x00\x02" * 50_000),
}


def sent(port: int, data: bytes) -> bytes:
    """What comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                answer += part
    return answer


def one_frame(connection: socket.socket) -> bytes:
    """The next frame that comes back, without its length."""
    with connection.makefile("rb") as stream:
        (length,) = struct.unpack(">I", stream.read(4))
        return stream.read(int(length))


def exception_type(answer: bytes) -> int:
    """The type of the TApplicationException that ends ``answer``, in the binary protocol: there it
    is the last field."""
    kind, field, value, stop = struct.unpack(">BHIB", answer[-8:])
    assert (kind, field, stop) == (8, 2, 0), answer
    return int(value)


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_not_thrift_closes_its_connection(stage: Stage, data: bytes) -> None:
    before = stage.malformed()
    assert sent(stage.framed, data) == b""
    until(lambda: stage.malformed() == before + 1)


@pytest.mark.parametrize("data", FRAMED.values(), ids=FRAMED.keys())
def test_a_malformed_frame_is_told_so_and_closes_its_connection(stage: Stage, data: bytes) -> None:
    before = stage.malformed()
    answer = sent(stage.framed, data)
    assert b"greets" not in answer
    assert exception_type(answer) in (PROTOCOL_ERROR, INVALID_TRANSFORM)
    until(lambda: stage.malformed() == before + 1)


@pytest.mark.parametrize("data", UNFRAMED.values(), ids=UNFRAMED.keys())
def test_a_malformed_struct_in_a_frame_costs_its_own_call(stage: Stage, data: bytes) -> None:
    before = stage.malformed()
    good = framed(call(ARGUMENT))
    with socket.create_connection(("127.0.0.1", stage.framed), 60) as connection:
        connection.sendall(good + framed(data) + good)
        with connection.makefile("rb") as stream:
            answers = [stream.read(int.from_bytes(stream.read(4), "big")) for _ in range(3)]
    assert [b"a greets you" in answer for answer in answers] == [True, False, True]
    assert exception_type(answers[1]) == PROTOCOL_ERROR
    until(lambda: stage.malformed() == before + 1)


@pytest.mark.parametrize("data", UNFRAMED.values(), ids=UNFRAMED.keys())
def test_a_malformed_struct_is_told_so_and_closes_its_connection(stage: Stage, data: bytes) -> None:
    before = stage.malformed()
    answer = sent(stage.unframed, data)
    assert answer.startswith(struct.pack(">II", STRICT | 3, 5) + b"greet" + struct.pack(">I", 1))
    assert exception_type(answer) == PROTOCOL_ERROR
    until(lambda: stage.malformed() == before + 1)


def test_a_reply_to_nothing_is_dropped_and_counted(stage: Stage) -> None:
    before = stage.impatient("dropped")
    with thriftpy_client(stage.ports["impatient"]) as client:
        for _ in range(3):
            client._oprot.trans.write(call(kind=2))
            client._oprot.trans.flush()
        assert client.greet("you") == "a greets you", "the connection is still good"
    until(lambda: stage.impatient("dropped") == before + 3)


def test_a_client_that_sends_a_byte_now_and_then_is_closed(stage: Stage) -> None:
    before = stage.impatient("slow_clients_closed")
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", stage.ports["impatient"]), 60) as connection:

        def trickle() -> None:
            for byte in framed(call(ARGUMENT * 40)):
                connection.sendall(bytes([byte]))
                time.sleep(0.02)

        with pytest.raises(ConnectionError):
            trickle()
    assert time.monotonic() - begin > 0.6
    until(lambda: stage.impatient("slow_clients_closed") == before + 1)


def test_a_client_that_never_reads_is_closed(stage: Stage) -> None:
    before = stage.impatient("slow_clients_closed")
    name = b"x" * 300_000
    argument = b"\x0b\x00\x01" + struct.pack(">I", len(name)) + name + b"\x00"
    with socket.create_connection(("127.0.0.1", stage.ports["impatient"]), 60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(framed(call(argument)))
        until(lambda: stage.impatient("slow_clients_closed") == before + 1)
    until(lambda: stage.impatient("sessions_active") == 0)


def test_clients_that_reset_while_calls_are_under_way(stage: Stage) -> None:
    source = random.Random(5)

    def run(seed: int) -> None:
        own, made = random.Random(seed), 0
        while made < 100:
            connection = socket.create_connection(("127.0.0.1", stage.ports["impatient"]), 60)
            for _ in range(own.randrange(1, 5)):
                with contextlib.suppress(ConnectionError):
                    connection.sendall(framed(call(ARGUMENT)))
                made += 1
            if own.random() < 0.5:
                time.sleep(own.random() * 0.01)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, [source.randrange(1 << 30) for _ in range(8)]))
    until(lambda: stage.impatient("sessions_active") == 0)
    until(lambda: stage.impatient("exchanges_active") == 0)


def test_random_bytes_end_in_an_answer_or_a_closed_connection(stage: Stage) -> None:
    source = random.Random(4)

    def attempt(number: int, arguments: bytes, changes: list[tuple[float, int]]) -> None:
        data = bytearray(call(arguments))
        for place, value in changes:
            data[int(place * len(data))] = value
        name = ("framed-alone", "unframed-alone")[number % 2]
        message = framed(bytes(data)) if name == "framed-alone" else bytes(data)
        with (
            socket.create_connection(("127.0.0.1", stage.ports[name]), 60) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    with ThreadPoolExecutor(16) as pool:
        attempts = [
            pool.submit(
                attempt,
                number,
                source.randbytes(source.randrange(40)),
                [(source.random(), source.randrange(256)) for _ in range(source.randrange(4))],
            )
            for number in range(100)
        ]
    for done in attempts:
        done.result()


def test_a_message_hidden_behind_another_in_one_frame_is_not_passed_on(stage: Stage) -> None:
    """Many servers go on reading where the first message ended, and answer the second one, too:
    on a connection that may by then be another client's."""
    name = "framed-alone"
    before = stage.handlers[name].calls["greet"]
    with socket.create_connection(("127.0.0.1", stage.ports[name]), 60) as connection:
        connection.sendall(framed(call(ARGUMENT) + call(ARGUMENT)))
        connection.recv(1 << 16)
    with thriftpy_client(stage.ports[name]) as client:
        assert client.greet("later") == "a greets later"
    assert stage.handlers[name].calls["greet"] <= before + 2


def test_a_message_hidden_behind_one_that_is_passed_on_as_it_arrives_is_not(stage: Stage) -> None:
    name = "framed-alone"
    before = stage.handlers[name].calls["greet"]
    refused = stage.malformed()
    who = b"x" * 100_000  # more than is waited for
    argument = b"\x0b\x00\x01" + struct.pack(">I", len(who)) + who + b"\x00"
    message = framed(call(argument) + call(ARGUMENT))
    with socket.create_connection(("127.0.0.1", stage.ports[name]), 60) as connection:
        connection.sendall(message[:50_000])
        time.sleep(0.05)
        connection.sendall(message[50_000:])
        assert exception_type(one_frame(connection)) == PROTOCOL_ERROR
        connection.sendall(framed(call(ARGUMENT)))
        assert b"a greets you" in one_frame(connection), "the connection is still good"
    until(lambda: stage.malformed() > refused)
    with thriftpy_client(stage.ports[name]) as client:
        assert client.greet("later") == "a greets later"
    assert stage.handlers[name].calls["greet"] == before + 2


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_connections_that_end_inside_a_message(stage: Stage, reset: bool) -> None:
    message = call(ARGUMENT)
    for port, data in ((stage.framed, framed(message)), (stage.unframed, message)):
        for length in range(len(data)):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(data[:length])
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    def active(name: str) -> int:
        return Metrics(stage.envoy).total("sessions_active", protocol=name)

    until(lambda: (active("framed"), active("unframed")) == (1, 1))
