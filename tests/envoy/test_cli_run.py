"""`metaprotocol run`, and the commands that ask it, as a person starts them: processes, a real
Envoy, real calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import metaprotocol
import pytest
from metaprotocol.peers.dubbo import DubboClient, DubboServer

from tests.testkit.commands import START_SECONDS, Mesh, command, output, switched
from tests.testkit.mesh import HOST, ROUTER_FILE, SERVICE_FILE, router_yaml, save, service_yaml, to
from tests.testkit.stage import SERVICE, Provider, dubbo_load, eventually


async def test_a_saved_change_reaches_running_traffic_at_once(mesh: Mesh) -> None:
    async with command("run", mesh.folder, "--concurrency", 2, "--json") as run:
        ready = await run.ready()
        assert ready["services"][0]["host"] == HOST
        times = []
        async with dubbo_load(mesh.port) as load:
            for target in ("v2", "v1", "v2", "v1"):
                mesh.route(to(target))
                times.append(await switched(load, target))
        load.check()
        # Far under a second, but for machines that are busy with other things as well: what waits,
        # or asks now and then, shows in all of them.
        assert min(times) < 5.0, times
        await eventually(lambda: len(run.changes("accepted")) == 4)
        seconds = [change["seconds"] for change in run.changes("accepted")]
        assert min(seconds) < 5.0, seconds
        assert await run.stop() == 0
    assert run.errors == []


async def test_hosts_subsets_and_routes_change_together_under_load(mesh: Mesh) -> None:
    async with (
        command("run", mesh.folder, "--json") as run,
        DubboServer(Provider("v3")) as third,
    ):
        await run.ready()
        async with dubbo_load(mesh.port) as load:
            ports = {name: server.port for name, server in mesh.providers.items()}
            # What is new comes before its use, what is old goes after it, as with any two files.
            save(mesh.folder / SERVICE_FILE, service_yaml(mesh.port, {**ports, "v3": third.port}))
            mesh.route(to("v3"))
            await switched(load, "v3")
            mesh.route(to("v1"))
            await switched(load, "v1")
            save(mesh.folder / SERVICE_FILE, service_yaml(mesh.port, {"v1": ports["v1"]}))
            gone = "~ServiceEntry shop/orders"
            await eventually(lambda: gone in run.changes("accepted")[-1]["objects"])
            await switched(load, "v1")
        load.check()


async def test_a_file_with_an_error_keeps_the_last_good_configuration(mesh: Mesh) -> None:
    async with command("run", mesh.folder, "--json") as run:
        await run.ready()
        async with dubbo_load(mesh.port) as load:
            for bad in (
                router_yaml(to("v2")).replace("hosts:", "hosst:"),
                router_yaml(to("v2"))[:-20],
                "kind: [",
            ):
                before = len(run.of("change"))
                save(mesh.folder / ROUTER_FILE, bad)
                await eventually(lambda before=before: len(run.of("change")) > before)  # type: ignore[misc]
                problems = run.of("change")[-1]["problems"]
                assert any(item.get("file") == str(mesh.folder / ROUTER_FILE) for item in problems)
                load.mark()
                await eventually(lambda: load.answered["v1"] > 100)
                assert set(load.answered) == {"v1"}
            mesh.route(to("v2"))
            await switched(load, "v2")
        load.check()


async def test_a_folder_that_vanishes_keeps_everything_until_it_is_back(mesh: Mesh) -> None:
    away = mesh.folder.with_name("away")
    async with command("run", mesh.folder, "--json") as run:
        await run.ready()
        async with dubbo_load(mesh.port) as load:
            os.rename(mesh.folder, away)
            await asyncio.sleep(1.0)
            load.mark()
            await eventually(lambda: load.answered["v1"] > 100)
            os.rename(away, mesh.folder)
            mesh.route(to("v2"))
            await switched(load, "v2")
        load.check()


async def test_ctrl_c_ends_envoy_and_control_plane_in_order(mesh: Mesh) -> None:
    async with command("run", mesh.folder, "--json") as run:
        await run.ready()
        assert await run.stop(signal.SIGINT) == 0
    assert run.errors == []
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await DubboClient.connect("127.0.0.1", mesh.port)


async def test_a_run_that_is_killed_leaves_no_envoy(mesh: Mesh) -> None:
    async with command("run", mesh.folder, "--json") as run:
        admin_port = (await run.ready())["admin_port"]
        with socket.create_connection(("127.0.0.1", admin_port), 5):
            pass
        assert await run.stop(signal.SIGKILL) == -signal.SIGKILL

        def gone() -> bool:
            with socket.socket() as asking:
                return asking.connect_ex(("127.0.0.1", admin_port)) != 0

        await eventually(gone, "no Envoy")


async def test_a_signal_while_envoy_starts_leaves_nothing_behind(mesh: Mesh) -> None:
    async with command("run", mesh.folder, "--json") as run:
        await eventually(lambda: run.of("problems"), "problems", START_SECONDS)
        assert await run.stop() == 0
    await asyncio.sleep(0.3)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await DubboClient.connect("127.0.0.1", mesh.port)


@pytest.mark.parametrize("option", ["--admin-port", "--xds-port"])
async def test_a_port_in_use_is_named_with_the_option_that_changes_it(
    mesh: Mesh, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with command("run", mesh.folder, option, port, "--json") as run:
            assert await run.process.wait() == 3
    (failure,) = run.of("failure")
    assert f"127.0.0.1:{port}" in failure["error"]
    assert option in failure["fix"]


async def test_a_service_port_in_use_is_told_of_its_service_entry(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", mesh.port)):
        async with command("run", mesh.folder, "--json") as run:
            await run.ready()
            (message,) = run.texts
            assert f"{SERVICE_FILE}:7:5: ServiceEntry shop/orders: spec.ports[0]" in message
            assert "in use" in message
            assert "metaprotocol.aeraki.io/bind" in message


async def test_an_envoy_that_is_killed_ends_run_with_its_log(mesh: Mesh) -> None:
    async with command("run", mesh.folder, "--json") as run:
        ready = await run.ready()
        os.kill(ready["envoy_pid"], signal.SIGKILL)
        assert await run.process.wait() == 3
    assert "SIGKILL" in run.of("failure")[0]["error"]


async def test_an_empty_folder_is_served_with_a_hint_and_filled_later(
    mesh: Mesh, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "metaprotocol", "run", str(empty)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = process.stdout
    assert output is not None
    lines: list[str] = []

    async def read() -> None:
        async for line in output:
            lines.append(line.decode())

    def said(text: str) -> bool:
        return text in "".join(lines)

    reader = asyncio.create_task(read())
    await eventually(lambda: said("Ctrl-C ends"), timeout=60)
    assert said("tcp-metaprotocol-dubbo")
    for path in mesh.folder.iterdir():
        save(empty / path.name, path.read_text())
    # The files are read as they come: the service may be in the last of several changes. And an
    # Envoy has accepted a listener before it is open.
    await eventually(lambda: said("in use after"), timeout=60)
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                client = await DubboClient.connect("127.0.0.1", mesh.port)
                break
            await asyncio.sleep(0.05)
        async with client:
            assert (await client.call(SERVICE, "list")).value == "v1"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        await reader
    assert "".join(lines).endswith("Stopping.\n")


async def test_routes_and_clusters_show_what_envoy_uses(mesh: Mesh, tmp_path: Path) -> None:
    mesh.route(to("v2", "testers", "{user: {exact: ann}}"), to("v1", "rest"))
    async with command("run", mesh.folder, "--json", runtime=tmp_path) as run:
        await run.ready()
        async with await DubboClient.connect("127.0.0.1", mesh.port) as client:
            assert (await client.call(SERVICE, "list", attachments={"user": "ann"})).value == "v2"
            for _ in range(3):
                assert (await client.call(SERVICE, "list")).value == "v1"
        found: list[tuple[str, int]] = []
        async with asyncio.timeout(60):  # counters are handed to Envoy about once a second
            while sum(requests for _, requests in found) < 4:
                (service,) = await output("routes", "--json", runtime=tmp_path)
                found = [(item["name"], item["requests"]) for item in service["routes"]]
        assert service["host"] == HOST
        assert found == [("testers", 1), ("rest", 3)]
        clusters = await output("clusters", "v1", "--json", runtime=tmp_path)
        assert [item["name"] for item in clusters] == [f"outbound|{mesh.port}|v1|{HOST}"]
        assert clusters[0]["requests"] == 3
        (host,) = clusters[0]["hosts"]
        assert host["address"] == f"127.0.0.1:{mesh.providers['v1'].port}"
        assert host["health"] == "healthy"
        text = await output("routes", runtime=tmp_path)
        assert 'user = "ann"' in text
        assert "outbound" in await output("clusters", runtime=tmp_path)


async def test_try_sends_a_call_through_envoy(mesh: Mesh) -> None:
    mesh.route(to("v2", "testers", "{user: {exact: ann}}"), to("v1", "rest"))
    async with command("run", mesh.folder, "--json") as run:
        await run.ready()
        found = await output(
            *("try", "dubbo", mesh.folder, "-i", SERVICE, "-m", "echo", "-a", "user=ann"),
            *("--arg", '{"a": 1}', "--send", f"127.0.0.1:{mesh.port}", "--json"),
        )
        assert found["route"] == "testers"
        assert found["answer"]["status"] == "ok"
        assert found["answer"]["value"] == [{"a": 1}]
        assert found["answer"]["attachments"]["provider"] == "v2"


async def test_try_sends_a_thrift_call(tmp_path: Path) -> None:
    async with thrift_echo() as server:
        text = service_yaml(9090, {"v1": server}).replace("dubbo", "thrift")
        save(tmp_path / SERVICE_FILE, text)
        proxy = metaprotocol.Proxy(tmp_path)
        await asyncio.to_thread(proxy.__enter__)
        try:
            port = await asyncio.to_thread(proxy.port, HOST, 9090)
            for method, status, code in (("ping", "ok", 0), ("fail", "error", 4)):
                found = await output(
                    *("try", "thrift", tmp_path, "-m", method),
                    *("--send", f"127.0.0.1:{port}", "--json"),
                    code=code,
                )
                assert found["answer"]["status"] == status, found
                assert {"key": "method", "value": method} in found["metadata"]
            assert found["answer"]["value"] == "as asked"
        finally:
            await asyncio.to_thread(proxy.__exit__, None, None, None)


@asynccontextmanager
async def thrift_echo() -> AsyncIterator[int]:
    """The port of a server that answers framed binary calls with an empty result, and the method
    "fail" with a TApplicationException."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                call = await reader.readexactly(length)
                (size,) = struct.unpack_from("!I", call, 4)
                name, tail = call[8 : 8 + size], call[8 + size : 12 + size]
                fails = name == b"fail"
                body = b"\x0b\x00\x01\x00\x00\x00\x08as asked\x00" if fails else b"\x00"
                head = struct.pack("!II", 0x80010003 if fails else 0x80010002, size)
                reply = head + name + tail + body
                writer.write(struct.pack("!I", len(reply)) + reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_run_in_a_terminal_shows_services_and_changes(mesh: Mesh) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "metaprotocol", "run", str(mesh.folder)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "160", "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # the terminal's other side has closed
            while data := os.read(ours, 1 << 16):
                shown.extend(data)

    reading = asyncio.create_task(asyncio.to_thread(read))
    try:
        await eventually(lambda: b"1 Envoy connected" in shown, "the table", START_SECONDS)
        assert f"{HOST}:{mesh.port}".encode() in shown
        mesh.route(to("v2"))
        await eventually(lambda: b"MetaRouter shop/orders: in use after" in shown, "the change")
        save(mesh.folder / ROUTER_FILE, router_yaml(to("v2")).replace("hosts", "hosst"))
        await eventually(lambda: b'did you mean "hosts"?' in shown, "the problem")
        mesh.route(to("v2"))
        await eventually(lambda: b" fixed, " in shown, "the fix")
    finally:
        os.write(ours, b"\x03")  # Ctrl-C, as the terminal's driver turns it into SIGINT
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        await reading
        os.close(ours)
    assert b"Traceback" not in shown


async def test_what_was_last_good_is_in_use_after_a_restart_with_an_error(
    mesh: Mesh, tmp_path: Path
) -> None:
    arguments = ("run", mesh.folder, "--state-folder", tmp_path / "state", "--json")
    mesh.route(to("v2"))
    async with command(*arguments) as run:
        await run.ready()
        assert await run.stop() == 0
    save(mesh.folder / ROUTER_FILE, router_yaml(to("v1")).replace("hosts:", "hosst:"))
    async with command(*arguments) as run:
        await run.ready()
        async with await DubboClient.connect("127.0.0.1", mesh.port) as client:
            assert (await client.call(SERVICE, "list")).value == "v2"
