"""Envoy's reference rate limit service (Go), with a real Redis behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import yaml

from tests.testkit.mesh import free_port
from tests.testkit.programs import listening
from tests.testkit.redis_servers import redis_program, running_redis

PROGRAM = Path(__file__).parents[2] / "build" / "mesh" / "bin" / "ratelimit"


def _environment(folder: Path, redis: int, debug: int, http: int, host: str) -> dict[str, str]:
    return {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(http),
        "GRPC_HOST": host,
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(debug),
        "RUNTIME_ROOT": str(folder / "limits"),
        "RUNTIME_SUBDIRECTORY": ".",
        "RUNTIME_WATCH_ROOT": "false",
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"127.0.0.1:{redis}",
        "USE_STATSD": "false",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
    }


@contextmanager
def running_reference(folder: Path, limits: object, host: str = "127.0.0.1") -> Iterator[int]:
    """Its port. ``limits``: what a file of its configuration says; ``host``: where it listens."""
    program = redis_program(folder)
    assert program is not None, "tools/system_packages.sh test installs one"
    place = folder / "limits" / "config"
    place.mkdir(parents=True)
    (place / "limits.yaml").write_text(yaml.safe_dump(limits))

    def ask(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=1)
            except grpc.FutureTimeoutError as error:
                raise OSError("not yet") from error

    with running_redis(program) as redis:
        debug, http = free_port(), free_port()

        def command(port: int) -> list[str]:
            environment = _environment(folder, redis.port, debug, http, host)
            return ["env", *(f"{k}={v}" for k, v in environment.items()), f"GRPC_PORT={port}",
                    str(PROGRAM)]  # fmt: skip

        with listening(command, ask, folder / "ratelimit.log") as port:
            yield port
