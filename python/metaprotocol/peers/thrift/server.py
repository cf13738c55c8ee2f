"""What the Thrift peers of both libraries share: names, the service's behaviour, a TCP server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Protocol, Self


class Framing(Enum):
    """How messages lie on the connection."""

    FRAMED = "framed"
    UNFRAMED = "unframed"
    HEADER = "header"  # THeader; only Apache's library has it


class Encoding(Enum):
    """How values are encoded."""

    BINARY = "binary"
    COMPACT = "compact"


class Refusal(Exception):
    """Raised by a handler: the client gets the service's declared exception ``Refused``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Record:
    """The service's struct."""

    name: str
    numbers: list[int] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    flag: bool = False
    ratio: float = 0.0


class Greeter(Protocol):
    """The service of greeter.thrift, as a server implements it."""

    def greet(self, name: str) -> str:
        """A greeting; Refusal if it is refused."""
        ...

    def add(self, left: int, right: int) -> int:
        """The sum."""
        ...

    def store(self, record: Record) -> Record:
        """The record, unchanged."""
        ...

    def note(self, text: str) -> None:
        """Takes the text; one-way."""
        ...


class GreeterHandler:
    """A Greeter that says who it is: ``greet`` answers "<who> greets <name>".

    The name "refuse" is refused; "slow <seconds>" is answered after that long.
    """

    def __init__(self, who: str = "server") -> None:
        self.who = who
        self.notes: list[str] = []
        self.calls: Counter[str] = Counter()

    def greet(self, name: str) -> str:
        """See the class."""
        self.calls["greet"] += 1
        if name == "refuse":
            raise Refusal(f"{self.who} refuses")
        if name.startswith("slow "):
            time.sleep(float(name.removeprefix("slow ")))
        return f"{self.who} greets {name}"

    def add(self, left: int, right: int) -> int:
        """The sum."""
        self.calls["add"] += 1
        return left + right

    def store(self, record: Record) -> Record:
        """The record, unchanged."""
        self.calls["store"] += 1
        return record

    def note(self, text: str) -> None:
        """Keeps the text in ``notes``."""
        self.calls["note"] += 1
        self.notes.append(text)


Handlers = Mapping[str, Greeter]
"""Handlers by service name; "" is the one for calls that name no service."""


class ThreadedServer:
    """Accepts TCP connections, on loopback if no other host is given, and serves each in a thread.

    ``serve`` gets the connected socket and returns, or raises OSError or EOFError, when it is done
    with it. Leaving the context closes every connection and waits for the threads.
    """

    def __init__(
        self, serve: Callable[[socket.socket], None], port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self._serve = serve
        self._listener = socket.create_server((host, port), backlog=1024)
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self.accepted = 0
        """Connections accepted so far."""

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes the listening socket and every connection."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        self.close_connections()
        for thread in threads:
            thread.join(timeout=5)
        self._listener.close()

    def close_connections(self) -> None:
        """Closes every connection that is open now."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._stopped:
                    connection.close()
                    return
                self._connections.add(connection)
                self.accepted += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._run, connection)

    def _run(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, EOFError):
                self._serve(connection)
        finally:
            with self._lock:
                self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.close()
