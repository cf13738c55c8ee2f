"""What the engine wants from the world: ``src/host/host.h`` as Python sees it."""

from __future__ import annotations

from typing import Protocol


class Host(Protocol):
    """Implemented by whoever runs an ``Engine``. Called only from within calls of its methods.

    Sessions are named by the numbers given to ``Engine.open_session``, leases by the engine's own.
    """

    def write_session(self, session: int, data: bytes) -> None:
        """Send ``data`` to the client."""

    def close_session(self, session: int, flush: bool) -> None:
        """Close the client connection, after what was written if ``flush``; forget the session."""

    def pause_session(self, session: int, paused: bool) -> None:
        """Stop or resume delivering bytes from the client."""

    def open_lease(self, lease: int, cluster: str, address: str) -> None:
        """Connect; answered by ``Engine.lease_ready`` or ``Engine.lease_closed``."""

    def write_lease(self, lease: int, data: bytes) -> None:
        """Send ``data`` to the server."""

    def probe_lease(self, lease: int) -> None:
        """Tell, by ``Engine.lease_drained``, when what was written has left."""

    def pause_lease(self, lease: int, paused: bool) -> None:
        """Stop or resume delivering bytes from the server."""

    def release_lease(self, lease: int) -> None:
        """The connection is idle and may be used by others; forget the lease."""

    def reset_lease(self, lease: int) -> None:
        """Close the connection, or give up opening it; forget the lease."""

    def start_call(
        self, call: int, session: int, cluster: str, path: str, message: bytes, timeout_us: int
    ) -> None:
        """Call the unary gRPC method ``path`` for that session; answered by ``Engine.call_done``,
        not before this returns."""

    def log(self, text: str) -> None:
        """A warning or an error."""

    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None:
        """A counter or gauge has changed; for histograms, ``delta`` is the number of values."""
