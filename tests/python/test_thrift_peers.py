"""The Thrift peers: both libraries' clients against both libraries' servers."""

from __future__ import annotations

import pytest

pytest.importorskip("thrift")
pytest.importorskip("thriftpy2")

from metaprotocol.peers.thrift import Encoding, Framing, GreeterHandler, Refusal
from metaprotocol.peers.thrift.apache import ApacheClient, ApacheServer
from metaprotocol.peers.thrift.apache import ApplicationError as ApacheError
from metaprotocol.peers.thrift.server import Record
from metaprotocol.peers.thrift.thriftpy import ThriftPyServer, greeter, thriftpy_client

SHAPES = [
    pytest.param(framing, encoding, id=f"{framing.value}-{encoding.value}")
    for framing in (Framing.FRAMED, Framing.UNFRAMED)
    for encoding in Encoding
]
SERVERS = [ThriftPyServer, ApacheServer]
RECORD = Record("name", [1, -(1 << 62)], {"key": "värde"}, True, 0.5)


@pytest.mark.parametrize("server_class", SERVERS)
@pytest.mark.parametrize(("framing", "encoding"), SHAPES)
def test_an_apache_client_is_understood(
    server_class: type[ThriftPyServer | ApacheServer], framing: Framing, encoding: Encoding
) -> None:
    handler = GreeterHandler("one")
    with (
        server_class({"": handler}, framing, encoding) as server,
        ApacheClient(server.port, framing, encoding) as client,
    ):
        client.note("first")
        assert client.greet("you") == "one greets you"
        assert client.add(1 << 40, 2) == (1 << 40) + 2
        assert client.store(RECORD) == RECORD
        with pytest.raises(Refusal, match="one refuses"):
            client.greet("refuse")
    assert handler.notes == ["first"]


@pytest.mark.parametrize("server_class", SERVERS)
@pytest.mark.parametrize(("framing", "encoding"), SHAPES)
def test_a_thriftpy2_client_is_understood(
    server_class: type[ThriftPyServer | ApacheServer], framing: Framing, encoding: Encoding
) -> None:
    handler = GreeterHandler("one")
    with (
        server_class({"": handler}, framing, encoding) as server,
        thriftpy_client(server.port, framing, encoding) as client,
    ):
        client.note("first")
        assert client.greet("you") == "one greets you"
        assert client.add(1 << 40, 2) == (1 << 40) + 2
        assert vars(client.store(greeter.Record(**vars(RECORD)))) == vars(RECORD)
        with pytest.raises(greeter.Refused):
            client.greet("refuse")
    assert handler.notes == ["first"]


@pytest.mark.parametrize("server_class", SERVERS)
def test_multiplexed_names_reach_their_service(
    server_class: type[ThriftPyServer | ApacheServer],
) -> None:
    handlers = {"A": GreeterHandler("a"), "B": GreeterHandler("b")}
    with server_class(handlers) as server:
        with ApacheClient(server.port, service="A") as client:
            assert client.greet("x") == "a greets x"
        with thriftpy_client(server.port, service="B") as client:
            assert client.greet("x") == "b greets x"


@pytest.mark.parametrize("encoding", list(Encoding))
def test_headers_travel_both_ways(encoding: Encoding) -> None:
    handlers = {"": GreeterHandler("one")}
    with (
        ApacheServer(handlers, Framing.HEADER, reply_headers={"from": "server"}) as server,
        ApacheClient(server.port, Framing.HEADER, encoding) as client,
    ):
        client.headers = {"from": "client"}
        assert client.greet("you") == "one greets you"
        assert server.last_headers == {"from": "client"}
        assert client.last_headers == {"from": "server"}


def test_an_unknown_service_is_an_application_error() -> None:
    with (
        ApacheServer({"A": GreeterHandler()}) as server,
        ApacheClient(server.port, service="B") as client,
        pytest.raises(ApacheError, match="no method B:greet") as raised,
    ):
        client.greet("you")
    assert raised.value.type == ApacheError.UNKNOWN_METHOD


def test_stopping_the_server_ends_its_connections() -> None:
    with ApacheServer({"": GreeterHandler()}) as server:
        client = ApacheClient(server.port)
        client.greet("you")
    with client, pytest.raises((OSError, EOFError, Exception)):  # noqa: PT012
        client.greet("you")
        client.greet("you")
