"""`metaprotocol run` and the ports of its services: nobody shares one unnoticed."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.peers.dubbo import DubboClient, DubboServer

from tests.testkit.commands import Command, command
from tests.testkit.mesh import HOST, SERVICE_FILE, free_port, to, write
from tests.testkit.stage import SERVICE, Provider, eventually


def folder_of(path: Path, port: int, provider: int) -> Path:
    write(path, port, {"v1": provider}, [to("v1")])
    return path


async def answers(port: int, calls: int, host: str = "127.0.0.1") -> Counter[str]:
    """Who answers, each call on a connection of its own."""
    found: Counter[str] = Counter()
    for _ in range(calls):
        async with await DubboClient.connect(host, port) as client:
            found[str((await client.call(SERVICE, "list")).value)] += 1
    return found


def listening(event: dict[str, Any]) -> dict[str, bool]:
    return {item["host"]: item["listening"] for item in event["services"]}


def problems(run: Command) -> list[dict[str, Any]]:
    return run.of("problems")[-1]["diagnostics"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("::1", "::"),
        ("::", "::1"),
    ],
)
async def test_a_second_run_on_the_same_port_gets_no_connection_and_says_so(
    tmp_path: Path, first: str, second: str
) -> None:
    port = free_port()
    async with DubboServer(Provider("one")) as one, DubboServer(Provider("two")) as two:
        folders = [
            folder_of(tmp_path / name, port, server.port)
            for name, server in (("a", one), ("b", two))
        ]
        async with command("run", folders[0], "--bind", first, "--json") as run:
            assert listening(await run.ready()) == {HOST: True}
            async with command("run", folders[1], "--bind", second, "--json") as other:
                assert listening(await other.ready()) == {HOST: False}
                (problem,) = problems(other)
                assert problem["object"] == "ServiceEntry shop/orders"
                assert "in use" in problem["message"]
                host = "::1" if ":" in first else "127.0.0.1"
                assert await answers(port, 20, host) == {"one": 20}


async def test_a_second_run_of_the_same_folder_says_that_the_port_is_taken(tmp_path: Path) -> None:
    async with DubboServer(Provider("v1")) as server:
        folder = folder_of(tmp_path / "mesh", free_port(), server.port)
        async with command("run", folder, "--concurrency", 2, "--json") as run:
            assert listening(await run.ready()) == {HOST: True}
            async with command("run", folder, "--concurrency", 2, "--json") as other:
                assert listening(await other.ready()) == {HOST: False}


async def test_a_program_that_would_share_its_port_gets_no_envoy_beside_it(tmp_path: Path) -> None:
    async with DubboServer(Provider("v1")) as server:
        port = free_port()
        folder = folder_of(tmp_path / "mesh", port, server.port)
        with socket.create_server(("127.0.0.1", port), reuse_port=True):
            async with command("run", folder, "--json") as run:
                assert listening(await run.ready()) == {HOST: False}
                (problem,) = problems(run)
                assert problem["file"] == str(folder / SERVICE_FILE)
                assert problem["field"] == "spec.ports[0]"


async def test_people_are_told_which_service_has_no_port(tmp_path: Path) -> None:
    port = free_port()
    folder = folder_of(tmp_path / "mesh", port, 1)
    with socket.create_server(("127.0.0.1", port)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "metaprotocol", "run", str(folder)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = ""
        async with asyncio.timeout(60):
            while "Ctrl-C ends" not in said:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        process.terminate()
        said += (await process.stdout.read()).decode()
        assert await process.wait() == 0
    assert f"{HOST}:{port} (dubbo) NOT on 127.0.0.1:{port}" in said
    assert f"{folder / SERVICE_FILE}:7:" in said
    assert said.count("cannot bind") == 1


async def test_several_workers_share_a_port_that_is_theirs_alone(tmp_path: Path) -> None:
    async with DubboServer(Provider("v1")) as server:
        port = free_port()
        folder = folder_of(tmp_path / "mesh", port, server.port)
        async with command("run", folder, "--concurrency", 4, "--json") as run:
            await run.ready()
            assert await answers(port, 20) == {"v1": 20}


async def test_a_port_that_becomes_free_is_taken_and_told_of(tmp_path: Path) -> None:
    async with DubboServer(Provider("v1")) as server:
        port = free_port()
        folder = folder_of(tmp_path / "mesh", port, server.port)
        with socket.create_server(("127.0.0.1", port)):
            taken = command("run", folder, "--json")
            run = await taken.__aenter__()
            assert listening(await run.ready()) == {HOST: False}
        try:
            await eventually(lambda: bool(run.of("services")), "the port")
            assert listening(run.of("services")[-1]) == {HOST: True}
            assert await answers(port, 3) == {"v1": 3}
        finally:
            await taken.__aexit__(None, None, None)
