"""Our Dubbo peer against implementations that are not ours.

Both ways: their consumer against our server, our client against their provider.
"""

from __future__ import annotations

import asyncio

import pytest
from metaprotocol.dubbo.hessian2 import JavaObject, Long, TypedList
from metaprotocol.peers.dubbo import DubboClient, DubboError, DubboException, DubboServer, Status

from tests.testkit import independent
from tests.testkit.greeter import PEER, Greeter, greet
from tests.testkit.independent import INTERFACE, Peer

JAVA_RESULTS = {
    "greet": "1.0.0 greets Jürgen 😀",
    "add": str((1 << 40) + 2),
    "attachment": "abc",
    "describe": "{cyclic=true, large=1125899906842624, name=thing, ratio=0.25, small=-7, "
    "words=[a, b]}",
    "copy": "thing 1125899906842624 100000 GREEN [a, b] {a=1} true",
    "fail": "GreeterException on purpose",
    "nothing": "null",
    "notes": "3",
}


@pytest.fixture(scope="module", params=["2.7.23", "3.2.16"])
def java(request: pytest.FixtureRequest) -> Peer:
    return independent.java(request.param)


@pytest.fixture(scope="module")
def node() -> Peer:
    return independent.node()


async def test_apache_dubbo_for_java_calls_our_server(java: Peer) -> None:
    async with DubboServer(Greeter("1.0.0")) as server:
        assert await asyncio.to_thread(java.consume, server.port, "1.0.0") == JAVA_RESULTS


async def test_our_client_calls_apache_dubbo_for_java(java: Peer) -> None:
    with java.provider("1.0.0") as port:
        async with await DubboClient.connect("127.0.0.1", port) as client:
            await check_common(client)
            thing = JavaObject(
                f"{PEER}$Thing",
                {
                    "name": "thing", "small": -7, "large": Long(1 << 50), "ratio": 0.25,
                    "flag": True, "bytes": b"x" * 100_000,
                    "colour": JavaObject(f"{PEER}$Colour", {"name": "GREEN"}),
                    "words": ["a", "b"], "counts": {"a": Long(1)}, "self": None,
                },
            )  # fmt: skip
            thing.fields["self"] = thing
            copy = (await client.call(INTERFACE, "copy", thing, version="1.0.0")).value
            assert copy["self"] is copy
            assert {**copy.fields, "self": None} == {**thing.fields, "self": None}
            reply = await client.call(
                INTERFACE, "attachment", "trace", version="1.0.0", attachments={"trace": "abc"}
            )
            assert reply.value == "abc"
            with pytest.raises(DubboException, match="on purpose") as raised:
                await client.call(INTERFACE, "fail", "on purpose", version="1.0.0")
            assert raised.value.class_name == f"{PEER}$GreeterException"
            await client.notify(INTERFACE, "note", "text", version="1.0.0")
            with pytest.raises(DubboError) as unknown:
                await client.call(INTERFACE, "nowhere", "x", version="1.0.0")
            assert unknown.value.status == Status.BAD_REQUEST
            while (await client.call(INTERFACE, "notes", version="1.0.0")).value != 1:
                await asyncio.sleep(0.01)
            await client.heartbeat()


async def test_dubbo_js_calls_our_server(node: Peer) -> None:
    async with DubboServer(Greeter("1.0.0")) as server:
        results = await asyncio.to_thread(node.consume, server.port, "1.0.0")
    assert results.pop("describe") == (
        '{"large":null,"name":"thing","ratio":null,"small":-7,"words":null,"cyclic":false}'
    )
    assert results == {
        "greet": "1.0.0 greets Jürgen",
        "add": "42",
        "fail": "error on purpose",
        "nothing": "null",
        "large": str(len("1.0.0 greets ") + 100_000),
    }


async def test_our_client_calls_hessian_js(node: Peer) -> None:
    with node.provider("1.0.0") as port:
        async with await DubboClient.connect("127.0.0.1", port) as client:
            await check_common(client)
            reply = await client.call(
                INTERFACE, "attachment", "trace", version="1.0.0", attachments={"trace": "abc"}
            )
            assert reply.value == "abc"
            with pytest.raises(DubboException, match="on purpose") as raised:
                await client.call(INTERFACE, "fail", "on purpose", version="1.0.0")
            assert raised.value.class_name == "java.lang.RuntimeException"
            await client.heartbeat()


async def check_common(client: DubboClient) -> None:
    """What every provider of the service answers."""
    assert await greet(client, "Jürgen") == "1.0.0 greets Jürgen"
    long = "ä" * 100_000
    assert await greet(client, long) == f"1.0.0 greets {long}"
    assert (await client.call(INTERFACE, "add", Long(1 << 40), 2, version="1.0.0")).value == (
        (1 << 40) + 2
    )
    assert (await client.call(INTERFACE, "nothing", version="1.0.0")).value is None
    words = TypedList("java.util.ArrayList", ["a", "b"])
    thing = JavaObject(f"{PEER}$Thing", {"name": "thing", "small": -7, "words": words})
    described = (await client.call(INTERFACE, "describe", thing, version="1.0.0")).value
    assert (described["name"], described["small"]) == ("thing", -7)
