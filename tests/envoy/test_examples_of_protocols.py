"""The examples of protocols other than Dubbo."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Literal

import metaprotocol
import pytest
from metaprotocol.peers.thrift import Encoding, Framing
from metaprotocol.peers.thrift.apache import ApacheClient, ApplicationError
from metaprotocol.peers.thrift.server import Record
from metaprotocol.peers.thrift.thriftpy import thriftpy_client

from tests.testkit import independent, kafka_clients
from tests.testkit.examples import EXAMPLES, GREETER, answer, becomes, greeting, running


def _stored_by(port: int) -> str | None:
    with ApacheClient(port) as client:
        return client.store(Record("book")).notes.get("by")


async def test_thrift_goes_by_method_and_header(tmp_path: Path) -> None:
    async with running("thrift", tmp_path, thrift=("v1", "v2")) as stage:
        port = await stage.port(GREETER)
        assert await asyncio.to_thread(_stored_by, port) == "v2"
        assert await asyncio.to_thread(greeting, port) == "v1 greets you"
        assert await asyncio.to_thread(greeting, port, {"user": "test-7"}) == "v2 greets you"
        assert await asyncio.to_thread(greeting, port, {"user": "ann"}) == "v1 greets you"

        def each_dialect() -> set[str]:
            found = set()
            for framing in (Framing.FRAMED, Framing.UNFRAMED):
                for encoding in Encoding:
                    with thriftpy_client(port, framing, encoding) as client:
                        found.add(client.greet("you"))
            return found

        assert await asyncio.to_thread(each_dialect) == {"v1 greets you"}
        stage.edit("routes.yaml", ("exact: store", "exact: greet"))
        await becomes("v2 greets you", lambda: asyncio.to_thread(greeting, port))
        assert await asyncio.to_thread(_stored_by, port) == "v1"


async def test_two_protocols_are_served_side_by_side(tmp_path: Path) -> None:
    def total(port: int) -> object:
        with ApacheClient(port) as client:
            try:
                return client.add(1, 2)
            except ApplicationError as error:
                return str(error)

    async with (
        running("two-protocols", tmp_path, dubbo=("v1",), thrift=("v1",)) as stage,
        stage.consumer() as client,
    ):
        port = await stage.port(GREETER)
        assert await answer(client) == "list by v1, lane mesh"
        assert await asyncio.to_thread(greeting, port) == "v1 greets you"
        assert "no sums today" in str(await asyncio.to_thread(total, port))
        text = (stage.folder / "routes.yaml").read_text()
        denied = re.search(r"  - name: no sums\n(?:    .*\n)+", text)
        assert denied is not None
        (stage.folder / "routes.yaml").write_text(text.replace(denied.group(), ""))
        await becomes(3, lambda: asyncio.to_thread(total, port))
        assert await answer(client) == "list by v1, lane mesh"
        assert not client.closed


async def test_private_protocol_is_routed_by_its_declaration(tmp_path: Path) -> None:
    peer = _module(EXAMPLES / "private-protocol" / "peer.py")
    orders = ("orders.demo.svc.cluster.local", 7000)
    async with peer.Server("v1") as v1, peer.Server("v2") as v2:
        others = {21891: v1.port, 21892: v2.port}
        async with running("private-protocol", tmp_path, others=others) as stage:
            port = await stage.port(orders)
            async with await peer.Client.connect("127.0.0.1", port) as client:

                async def said(method: str, **headers: str) -> str:
                    reply = await client.send(method, headers, b"!")
                    return f"{reply.status} {reply.body.decode()}"

                slow = asyncio.create_task(said("order", sleep="2"))
                assert await said("order") == "0 order by v1!"
                assert await said("order", user="test-7") == (
                    "0 order by v2 lane=test user=test-7!"
                )
                assert await said("oldOrder") == "2 no_route: oldOrder is retired, use order"
                assert not slow.done(), "an answer overtakes it"
                assert await slow == "0 order by v1 sleep=2!"
                assert (await client.send("", type_=peer.HEARTBEAT)).type == peer.HEARTBEAT_REPLY
                await client.send("remember", {"user": "test-1"}, b"it", peer.TELL)

                async def told() -> object:
                    return [(item.method, item.body) for item in v2.told]

                await becomes([("remember", b"it")], told)
                long = await client.send("order", {}, b"x" * 300_000)
                assert len(long.body) == 300_011
                stage.edit("routes.yaml", ("exact: oldOrder", "exact: order"))
                await becomes("0 oldOrder by v1!", lambda: said("oldOrder"))
                assert (await said("order")).startswith("2 no_route")


@pytest.mark.parametrize("heads", ["json", "binary"])
async def test_rocketmq_sends_and_receives_under_the_topic_that_a_route_gives(
    heads: Literal["json", "binary"], tmp_path: Path
) -> None:
    peer = independent.rocketmq(heads)
    fields = b"\0\1b\0\0\0\x06Orders"
    head = (310).to_bytes(2) + b"\0\0\0" + (7).to_bytes(4) + bytes(8) + len(fields).to_bytes(4)
    binary = b"\1" + len(head + fields).to_bytes(3) + head + fields  # without what a broker wants
    object_ = b'{"code":310,"extFields":{"b":"Orders"},"flag":0,"opaque":7}'
    in_json = b"\0" + len(object_).to_bytes(3) + object_
    with peer.provider("v1") as broker:
        async with running("rocketmq", tmp_path, others={10911: broker}) as stage:
            port = await stage.port(("broker.demo.svc.cluster.local", broker))
            said = await asyncio.to_thread(peer.consume, port, "127.0.0.2")
            stage.edit("routes.yaml", ("exact: Retired", "exact: Orders"))

            async def retired() -> object:
                answer = await _answered(port, len(binary).to_bytes(4) + binary, "127.0.0.2")
                return b"this topic is retired" in answer

            await becomes(True, retired)
            # Both forms at one port, each answered in its own.
            answer = await _answered(port, len(in_json).to_bytes(4) + in_json, "127.0.0.2")
            assert json.loads(answer[8:]) == {
                "code": 16,
                "flag": 1,
                "language": "OTHER",
                "opaque": 7,
                "remark": "this topic is retired",
            }
            wrong = b"\2" + in_json[1:]
            assert await _answered(port, len(wrong).to_bytes(4) + wrong, "127.0.0.2") == b""
    assert said["send"] == "SEND_OK"
    assert said["alias"] == "SEND_OK"
    assert "CODE: 16 " in said["retired"]
    assert "this topic is retired" in said["retired"]
    assert said["orders"] == "four one two", "the alias, and what was sent one way"
    assert said["large"] == "true"
    assert said["many"] == "true"
    assert said["pushed"] == "2", "the second while the consumer waits at the broker"
    # That another consumer has come, and what the first is asked and answers: its topic and that of
    # retries.
    assert said["told"] == "2 then 1, doing 2"
    if heads == "json":
        assert said["popped"] == "pop me OK"
    else:  # two bytes have no room for its number
        assert "3442" in said["popped"]


async def test_kafka_keeps_the_order_of_replies_and_knows_apis_and_clients(tmp_path: Path) -> None:
    peer = independent.kafka()
    async with running("kafka", tmp_path, others={19092: 9}) as stage:
        port = await stage.port(("kafka.demo.svc.cluster.local", 9092))
        # The broker has to know where Envoy is, and Envoy where the broker is.
        with peer.provider(str(port)) as broker:
            stage.edit("service.yaml", ("kafka: 9}", f"kafka: {broker}}}"))
            versions = bytes.fromhex("0000000d 0012 0000 00000007 0003 697420")  # ApiVersions

            async def reached() -> object:
                return await _answered(port, versions) != b""

            await becomes(True, reached)
            bootstrap = f"127.0.0.1:{port}"
            got = await kafka_clients.aiokafka_round(bootstrap)
            large = await asyncio.to_thread(
                kafka_clients.librdkafka_round, bootstrap, "large", "it"
            )
            # CreateTopics, version 0, for no topic at all.
            create = bytes.fromhex("00000015 0013 0000 00000007 0003 697420 00000000 00000000")
            assert await _answered(port, create) == b"", "closed"
            stage.edit("routes.yaml", ("[CreateTopics, DeleteTopics]", "[DeleteTopics]"))

            async def made() -> object:
                return await _answered(port, create)

            await becomes(bytes.fromhex("00000008 00000007 00000000"), made)
    assert got == kafka_clients.MESSAGES
    assert large == [b"before", kafka_clients.LARGE, b"after"]


async def _answered(port: int, request: bytes, address: str = "127.0.0.1") -> bytes:
    """What comes back of a length and what it announces; nothing if the connection is closed."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(request)
        length = await reader.read(4)
        return length + await reader.readexactly(int.from_bytes(length)) if length else b""
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _module(path: Path) -> ModuleType:
    """A Python file of an example."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_redis_keeps_sessions_apart_and_asks_for_passwords(tmp_path: Path) -> None:
    redis_servers = pytest.importorskip("tests.testkit.redis_servers")
    program = redis_servers.redis_program(tmp_path)
    if program is None:
        pytest.skip("there is no Redis server: tools/system_packages.sh peers")
    folder = tmp_path / "redis"
    shutil.copytree(EXAMPLES / "redis", folder)
    with (
        redis_servers.running_redis(program) as cache,
        redis_servers.running_redis(program, password="for-the-server") as sessions,
    ):
        services = folder / "service.yaml"
        text = services.read_text().replace("16379", str(cache.port))
        services.write_text(text.replace("16380", str(sessions.port)))
        with metaprotocol.Proxy(folder) as proxy:
            port = proxy.port("cache.shop.svc.cluster.local", 6379)
            client = redis_servers.client_of(port, "for-clients")
            assert client.set("session:7", "open")
            assert client.set("user:7", "known")
            assert client.get("session:7") == "open"
            assert cache.data() == {"user:7": "known"}
            deadline = time.monotonic() + 60
            while sessions.data() != {"7": "open", "user:7": "known"}:
                assert time.monotonic() < deadline, "no copy"
                time.sleep(0.05)
            written = (folder / "redis.yaml").read_text()
            (folder / "redis.yaml").write_text(written.replace("for-clients}", "other}"))
            while True:  # until the new password is the one
                try:
                    assert redis_servers.client_of(port, "other").get("user:7") == "known"
                    break
                except redis_servers.redis.AuthenticationError:
                    assert time.monotonic() < deadline, "the change has no effect"
                    time.sleep(0.05)
