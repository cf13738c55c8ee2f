"""Records what real Dubbo implementations say to each other, as vectors for the codec's tests.

    capture.py java --home LIBS --name java-2.7.23 [--serialization hessian2] [--long] --out DIR
    capture.py node --home NODE_MODULES --name node-3.0.0-rc6 --out DIR

LIBS is a folder with the jars of one Dubbo version, NODE_MODULES one with apache-dubbo-js and
hessian.js; tests/vectors/dubbo/README.md has the commands that fill them. A recorder between client
and server cuts both directions into frames and writes one file for each. Dubbo for Java listens on
all addresses, so run it in a network namespace of its own: `unshare -n sh -c 'ip link set lo up;
capture.py ...'`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pathlib
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

HEADER_BYTES = 16
FLAG_REQUEST, FLAG_EVENT = 0x80, 0x20
CALLS = (
    *("echo", "unicode", "long", "nothing", "refuse"),
    *("tell", "mix", "scalars", "generic", "missing"),
)  # in the order in which Capture.java and capture.js make them
HERE = pathlib.Path(__file__).parent


@dataclass
class Recorder:
    """Forwards one port to another and keeps every frame it sees, by name."""

    upstream_port: int
    call_names: Sequence[str]
    frames: dict[str, bytes] = field(default_factory=dict)
    names_by_id: dict[bytes, str] = field(default_factory=dict)
    calls: int = 0

    def keep(self, frame: bytes, from_client: bool) -> None:
        flags, request_id = frame[2], frame[4:12]
        side = "client" if from_client else "server"
        if flags & FLAG_EVENT:
            what = "request" if flags & FLAG_REQUEST else "response"
            event = "readonly" if frame.endswith((b"R", b'R"\n')) else "heartbeat"
            self.frames.setdefault(f"{side}-{event}.{what}", frame)
        elif flags & FLAG_REQUEST:
            name = self.call_names[self.calls]
            self.calls += 1
            self.names_by_id[request_id] = name
            self.frames[f"{name}.request"] = frame
        else:
            self.frames[f"{self.names_by_id.get(request_id, 'unknown')}.response"] = frame

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, from_client: bool
    ) -> None:
        try:
            while True:
                header = await reader.readexactly(HEADER_BYTES)
                (length,) = struct.unpack_from(">I", header, 12)
                frame = header + await reader.readexactly(length)
                self.keep(frame, from_client)
                writer.write(frame)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        except ConnectionError:  # the provider has gone, the client tries again
            writer.close()
            return
        await asyncio.gather(
            self.pump(reader, up_writer, True), self.pump(up_reader, writer, False)
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def run(command: Sequence[str], cwd: pathlib.Path, env: dict[str, str] | None = None) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=None if env is None else {**os.environ, **env}
    )
    if await process.wait() != 0:
        raise SystemExit(f"{command[0]} failed")


def java_source(name: str, old_packages: bool, work: pathlib.Path) -> None:
    text = (HERE / "java" / name).read_text()
    if old_packages:
        text = text.replace("org.apache.dubbo", "com.alibaba.dubbo")
    (work / name).write_text(text)


async def record(options: argparse.Namespace) -> dict[str, bytes]:
    home = pathlib.Path(options.home).resolve()
    provider_port = free_port()
    sent = [name for name in CALLS if name not in options.unsent]
    recorder = Recorder(provider_port, sent)
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        if options.peer == "java":
            java_source("Capture.java", "2.6" in options.name, work)
            class_path = f"{home}/*:{work}"
            await run(["javac", "-encoding", "UTF-8", "-cp", class_path, "Capture.java"], work)
            opens = [
                f"--add-opens=java.base/{package}=ALL-UNNAMED"
                for package in ("java.lang", "java.util", "java.math", "java.time", "java.io")
            ]
            await run(
                ["java", "-Dfile.encoding=UTF-8", *opens, "-cp", class_path, "Capture",
                 str(provider_port), str(port), options.serialization],
                work,
            )  # fmt: skip
        else:
            shutil.copy(HERE / "capture.js", work)
            await run(
                ["node", "capture.js", str(provider_port), str(port)],
                work,
                {"NODE_PATH": str(home)},
            )
    server.close()
    return recorder.frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["java", "node"])
    parser.add_argument("--home", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--serialization", default="hessian2")
    parser.add_argument("--long", action="store_true", help="keep the large frames too")
    parser.add_argument(
        "--unsent", action="append", default=[], help="a call that this client fails to encode"
    )
    parser.add_argument("--out", required=True, type=pathlib.Path)
    options = parser.parse_args()
    frames = asyncio.run(record(options))
    folder = options.out / options.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in sorted(frames.items()):
        if options.long or not name.startswith("long."):
            (folder / f"{name}.bin").write_bytes(frame)
            sys.stdout.write(f"{options.name}/{name} {len(frame)} bytes\n")


if __name__ == "__main__":
    main()
