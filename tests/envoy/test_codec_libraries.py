"""Codecs in libraries of their own, in a stock Envoy: calls, routes, and how a crash ends."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from metaprotocol.api.proxy import Proxy
from metaprotocol.envoy.process import EnvoyError

from tests.envoy.test_declared_protocols import HOST, mesh, to
from tests.python.external.building import PAGE, STREAMS, library, page
from tests.testkit import streams
from tests.testkit.examples import becomes

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


async def read(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes, bytes]:
    """Kind, id, method and body of the next message."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    rest = await reader.readexactly(length)
    method, _, body = rest[5:].partition(b"\0")
    return rest[:1], int.from_bytes(rest[1:5], "big"), method, body


@asynccontextmanager
async def server(name: bytes, told: list[bytes]) -> AsyncIterator[int]:
    """Answers with its name, slow requests late; its port."""

    async def answer(writer: asyncio.StreamWriter, number: int, method: bytes, body: bytes) -> None:
        await asyncio.sleep(0.3 if method == b"slow" else 0)
        writer.write(page(method + b" by " + name, number, body, b"R"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = []
        try:
            while True:
                kind, number, method, body = await read(reader)
                if kind == b"T":
                    told.append(method)
                else:
                    answers.append(asyncio.create_task(answer(writer, number, method, body)))
        except (asyncio.IncompleteReadError, ConnectionError):
            for task in answers:
                task.cancel()
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def opens(stream: int, keys: str = "") -> streams.Message:
    return streams.Message("S", stream, keys=keys)


def protocol(folder: Path, path: str, name: str = "page") -> None:
    """Adds an ApplicationProtocol."""
    spec = {"protocol": name, "library": path}
    (folder / "protocol.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "metaprotocol.aeraki.io/v1alpha1",
                "kind": "ApplicationProtocol",
                "metadata": {"name": name},
                "spec": spec,
            }
        )
    )


ROUTES: list[object] = [
    {"name": "new", "match": {"attributes": {"method": {"prefix": "new"}}}, "route": to("v2")},
    {
        "name": "gone",
        "match": {"attributes": {"method": {"exact": "gone"}}},
        "directReply": {"kind": "no_route", "text": "it is gone"},
    },
    {"name": "all", "route": to("v1"), "timeout": "5s"},
]


async def test_a_page_of_cpp_carries_calls_of_two_clients(tmp_path: Path) -> None:
    path = library(tmp_path, PAGE.read_text())
    told: list[bytes] = []
    async with server(b"v1", told) as one, server(b"v2", told) as two:
        folder = mesh(tmp_path / "mesh", "page", [one, two], ROUTES)
        protocol(folder, path)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
            # The same ids at once, over shared upstream connections.
            writer.write(page(b"slow", 7) + page(b"newer", 8) + page(b"gone", 9))
            writer.write(page(b"note", 10, kind=b"T") + page(b"", 11, b"", b"H"))
            other_writer.write(page(b"slow", 7, b"other") + page(b"get", 8, b"x" * 300_000))
            first = {(await read(reader))[1:] for _ in range(4)}
            second = {(await read(other_reader))[1:] for _ in range(2)}
            # What is no message of the protocol costs its own connection, and no other.
            bad_reader, bad_writer = await asyncio.open_connection("127.0.0.1", port)
            bad_writer.write(b"\0\0\0\x10?")
            bad_writer.write(b"\0" * 20)
            await bad_reader.read()
            bad_writer.close()
            writer.write(page(b"get", 12))
            assert (await read(reader))[1:] == (12, b"get by v1", b"body")
            writer.close()
            other_writer.close()
    assert first == {
        (7, b"slow by v1", b"body"),
        (8, b"newer by v2", b"body"),
        (9, b"no_route: it is gone", b""),
        (11, b"", b""),
    }
    assert second == {(7, b"slow by v1", b"other"), (8, b"get by v1", b"x" * 300_000)}
    assert told == [b"note"]


async def test_streams_of_a_library_share_a_connection_and_end_as_they_should(
    tmp_path: Path,
) -> None:
    path = library(tmp_path, STREAMS.read_text())
    async with streams.serving() as one, streams.serving() as two:
        folder = mesh(
            tmp_path / "mesh", "streams", [one.port, two.port],
            [
                {"name": "b", "match": {"attributes": {"to": {"exact": "b"}}}, "route": to("v2")},
                {"name": "all", "route": to("v1")},
            ],
        )  # fmt: skip
        protocol(folder, path, "streams")
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            async with streams.connected(port) as client, streams.connected(port) as other:
                for peer, text in ((client, b"one"), (other, b"two")):
                    peer.send(opens(1), opens(2), streams.Message("Q", 3))
                    peer.send(streams.Message("D", 1, text), streams.Message("L", 2, text))
                for peer, text in ((client, b"one"), (other, b"two")):
                    got = [await peer.receive() for _ in range(3)]
                    assert sorted((m.kind, m.id, m.body) for m in got) == [
                        ("D", 1, text), ("L", 2, text), ("R", 3, b"")
                    ]  # fmt: skip
                assert len(one.connections) == 1
                assert len({m.id for m in one.seen if m.kind == "S"}) == 4
                client.send(streams.Message("W", 1, b"1000"), streams.Message("Z", 1, b"enough"))
                client.send(opens(4, "to=b"), streams.Message("F", 4))
                assert await client.receive() == streams.Message("F", 4), "by the other server"
                client.send(streams.Message("Q", 5))
                assert await client.receive() == streams.Message("R", 5)
                assert one.kinds("WZ") == "WZ"
                one.connections[0].writer.transport.abort()
                assert await other.receive() == streams.Message("Z", 1, b"upstream_lost")


async def test_a_message_that_cannot_be_encoded_costs_its_own_call(tmp_path: Path) -> None:
    """Also one of which only the beginning has come, in either direction."""
    text = PAGE.read_text()
    begin = "    out.append(bytes.substr(0, 5));\n    Append(out, options.id);\n"
    assert begin in text
    refusing = """
    if (bytes.substr(9, 6) == "unsent" || (bytes[4] == 'R' && bytes.substr(9, 7) == "unheard")) {
      throw std::runtime_error("it cannot be");
    }
    """
    path = library(tmp_path, "#include <stdexcept>\n" + text.replace(begin, refusing + begin))
    large = b"x" * 300_000
    async with server(b"v1", []) as one:
        folder = mesh(tmp_path / "mesh", "page", [one, one], ROUTES)
        protocol(folder, path)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(page(b"unsent", 1, large) + page(b"get", 2) + page(b"unheard", 3, large))
            other_writer.write(page(b"get", 2, large))
            answers = {
                number: method for _, number, method, _ in [await read(reader) for _ in "123"]
            }
            assert (await read(other_reader))[1:] == (2, b"get by v1", large)
            writer.write(page(b"get", 4))
            assert (await read(reader))[1:3] == (4, b"get by v1")
            writer.close()
            other_writer.close()
    assert answers[1].startswith(b"malformed")
    assert answers[2] == b"get by v1"
    assert answers[3].startswith(b"bad_response")


async def test_a_new_build_at_a_new_path_takes_over_without_a_restart(tmp_path: Path) -> None:
    text = PAGE.read_text()
    assert 'name + ": "' in text
    first = library(tmp_path, text, "first")
    second = library(tmp_path, text.replace('name + ": "', 'name + "! "'), "second")
    async with server(b"v1", []) as one:
        folder = mesh(tmp_path / "mesh", "page", [one, one], ROUTES)
        protocol(folder, first)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)

            async def said(method: bytes) -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(page(method))
                answer = (await read(reader))[2]
                writer.close()
                return answer

            assert await said(b"gone") == b"no_route: it is gone"
            protocol(folder, second)

            async def gone() -> object:
                return await said(b"gone")

            await becomes(b"no_route! it is gone", gone)
            assert await said(b"get") == b"get by v1"


WITH_STATE = """
  struct Own : State {
    const PageCodec* made_by = nullptr;
    ~Own() override { if (made_by->alive != 0xA11FEu) std::abort(); }
  };
  unsigned alive = 0xA11FEu;
  ~PageCodec() override { alive = 0; }
  std::unique_ptr<State> NewState(Direction) const override {
    auto own = std::make_unique<Own>();
    own->made_by = this;
    return own;
  }

  Result Decode(State* state, Direction,"""


async def test_a_connection_keeps_its_state_when_the_configuration_changes(tmp_path: Path) -> None:
    """The state is used with the codec that made it, which is there for as long as the state is."""
    text = PAGE.read_text().replace("  Result Decode(State*, Direction,", WITH_STATE)
    first = "    if (bytes.size() < kHead) return NeedMore(kHead);\n"
    assert first in text
    assert WITH_STATE in text
    alone = '    if (static_cast<Own*>(state)->made_by != this) return Error("of another codec");\n'
    path = library(tmp_path, "#include <cstdlib>\n" + text.replace(first, alone + first))
    async with server(b"v1", []) as one, server(b"v2", []) as two:
        folder = mesh(tmp_path / "mesh", "page", [one, two], [{"name": "all", "route": to("v1")}])
        protocol(folder, path)
        with Proxy(folder, concurrency=1) as proxy:
            port = await asyncio.to_thread(proxy.port, HOST, 7000)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for version in ("v1", "v2", "v1", "v2"):
                mesh(folder, "page", [one, two], [{"name": "all", "route": to(version)}])

                async def call() -> object:
                    writer.write(page(b"get"))
                    return (await read(reader))[2]

                await becomes(b"get by " + version.encode(), call)
            writer.close()
            new_reader, new_writer = await asyncio.open_connection("127.0.0.1", port)
            new_writer.write(page(b"get"))
            assert (await read(new_reader))[2] == b"get by v2"
            new_writer.close()


AT_LOAD = """
#include <unistd.h>
#include <cstdlib>
#include <string>
static const int at_load = [] {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  const std::string name(path, size > 0 ? size : 0);
  if (name.rfind("/envoy") != std::string::npos && name.rfind("/envoy") == name.rfind('/')) abort();
  return 1;
}();
"""


async def test_a_crash_at_load_in_envoy_alone_ends_it_and_that_is_said(tmp_path: Path) -> None:
    """The control plane, where it does not crash, has nothing against it."""
    path = library(tmp_path, PAGE.read_text() + AT_LOAD)
    folder = mesh(tmp_path / "mesh", "page", [9, 10], ROUTES)
    protocol(folder, path)
    with pytest.raises(EnvoyError, match="Envoy ended by signal SIGABRT") as raised:
        await asyncio.to_thread(_start, folder)
    assert path in str(raised.value), "Envoy's log names what it was loading"


def _start(folder: Path) -> None:
    with Proxy(folder, concurrency=1):
        pass
