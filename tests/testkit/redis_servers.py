"""Real Redis servers on loopback, each with its data in memory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.testkit.mesh import free_port

_TRIES = 5
_START_SECONDS = 20.0


def redis_program(folder: Path) -> str | None:
    """Where the server is; None on machines that have none. Debian's redis-tools, which start no
    service, have it under another name, of which ``folder`` then gets a link."""
    if found := shutil.which("redis-server"):
        return found
    if (tools := shutil.which("redis-check-rdb")) is None:
        return None
    link = folder / "redis-server"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(Path(tools).resolve())
    return str(link)


@dataclass
class RedisServer:
    """A running server."""

    port: int
    password: str = ""
    ca: Path | None = None
    """It speaks TLS; whose certificate it has."""

    @cached_property
    def client(self) -> Any:
        """Connected to it directly."""
        return self.connect(self.port, self.password)

    def connect(self, port: int, password: str = "") -> Any:
        """A client of what is at a port, such as Envoy."""
        tls: dict[str, Any] = {}
        if self.ca is not None and port == self.port:
            tls = {"ssl": True, "ssl_ca_certs": str(self.ca), "ssl_check_hostname": False}
        return client_of(port, password, **tls)

    def data(self) -> dict[str, str]:
        """All keys with their values, which must be texts."""
        return {key: self.client.get(key) for key in sorted(self.client.keys("*"))}

    def calls(self, command: str) -> int:
        """How often the server has got a command."""
        found = self.client.info("commandstats").get(f"cmdstat_{command}", {})
        return int(found.get("calls", 0))


def client_of(port: int, password: str = "", **options: Any) -> Any:
    """A client that says what goes wrong at once."""
    return redis.Redis(
        port=port,
        password=password or None,
        protocol=2,  # Envoy's filter has no other
        decode_responses=True,
        socket_timeout=20,
        retry=Retry(NoBackoff(), 0),
        **options,
    )


@contextmanager
def running_redis(
    program: str, *, password: str = "", arguments: Sequence[str] = (), tls: tuple[Path, ...] = ()
) -> Iterator[RedisServer]:
    """A server on a free port. ``tls``: certificate, key and CA of one that speaks TLS."""
    for _ in range(_TRIES):
        port = free_port()
        place = ["--port", str(port)]
        if tls:
            certificate, key, ca = map(str, tls)
            place = ["--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate]
            place += ["--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no"]
        command = [program, *place, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
        if password:
            command += ["--requirepass", password]
        server = RedisServer(port, password, tls[2] if tls else None)
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                [*command, *arguments], cwd=folder, stdout=subprocess.DEVNULL
            )
            try:
                if not _started(server, process):
                    continue  # somebody else has taken the port
                yield server
                return
            finally:
                process.kill()
                process.wait()
    raise RuntimeError("no Redis server can be started")


def _started(server: RedisServer, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None:
        with contextlib.suppress(redis.ConnectionError):
            server.client.ping()
            return process.poll() is None
        assert time.monotonic() < deadline, "a Redis server does not answer"
        time.sleep(0.02)
    return False


@contextmanager
def running_cluster(
    program: str, masters: int = 2, *, password: str = ""
) -> Iterator[list[RedisServer]]:
    """A Redis cluster of that many masters with their shares of the slots, and a replica of the
    first, which is the last of the servers."""
    with ExitStack() as stack:
        servers = []
        for _ in range(masters + 1):
            arguments = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            arguments += ["--masterauth", password] if password else []
            servers.append(
                stack.enter_context(running_redis(program, password=password, arguments=arguments))
            )
        share = 16384 // masters
        for index, server in enumerate(servers[:masters]):
            last = 16383 if index == masters - 1 else (index + 1) * share - 1
            server.client.execute_command("CLUSTER ADDSLOTSRANGE", index * share, last)
            server.client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)
        first = servers[0].client
        for server in servers[1:]:
            bus = server.client.config_get("cluster-port")["cluster-port"]
            first.execute_command("CLUSTER MEET", "127.0.0.1", server.port, int(bus))
        replica = servers[-1].client
        _wait(lambda: len(replica.cluster("nodes")) == masters + 1, "the nodes do not meet")
        name = first.execute_command("CLUSTER MYID")
        replica.execute_command("CLUSTER REPLICATE", name)
        for server in servers:
            _wait(lambda server=server: _whole(server, masters), "the cluster is not whole")
        yield servers


def _whole(server: RedisServer, masters: int) -> bool:
    """Whether a node knows all masters and the one replica, which has what its master has."""
    if server.client.cluster("info")["cluster_state"] != "ok":
        return False
    slots = server.client.cluster("slots")  # each: first, last, the master, its replicas
    linked = server.client.info("replication")
    behind = linked["role"] == "slave" and linked["master_link_status"] != "up"
    replicas = sum(len(share) - 3 for share in slots)
    return not behind and len(slots) == masters and replicas == 1


def _wait(done: Any, otherwise: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)
