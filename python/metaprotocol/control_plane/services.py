"""What Envoys listen for, read back from the messages they are sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from metaprotocol.config.v1 import ProxyConfig
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.envoy.redis import REDIS_FILTER
from metaprotocol.envoy.zookeeper import ZOOKEEPER_FILTER
from metaprotocol.translate import Snapshot
from metaprotocol.translate.naming import FILTER, LISTENER

_NATIVE = {REDIS_FILTER: "redis", ZOOKEEPER_FILTER: "zookeeper"}


@dataclass(frozen=True)
class ServedService:
    """One port of one service."""

    host: str
    port: int
    protocol: str
    """The codec's name; "redis" and "zookeeper" have Envoy's own filters."""
    listener: str
    """The name of Envoy's listener, and of its filter."""
    address: str
    """Where Envoy listens: "127.0.0.1:20880". The port is 0 where the kernel chooses."""
    routes: int
    listening: bool = True
    """Whether no Envoy refuses the listener."""

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)


class ServiceBook:
    """Reads services out of snapshots. One whose messages are still the same
    objects is not read again, so that looking often costs little."""

    def __init__(self, types: EnvoyTypes) -> None:
        self._types = types
        self._read: dict[str, tuple[Message, Message | None, ServedService]] = {}

    def services(self, snapshot: Snapshot) -> list[ServedService]:
        """One per listener, sorted by name."""
        read = {}
        for name, made in snapshot.made.get(LISTENER, {}).items():
            listener = made.message
            routes = snapshot.find(FILTER, name)
            extension = routes.message if routes is not None else None
            known = self._read.get(name)
            if known is None or known[0] is not listener or known[1] is not extension:
                service = _service(self._types, name, listener, extension)
                known = (listener, extension, service)
            read[name] = known
        self._read = read
        return [read[name][2] for name in sorted(read)]


def _service(
    types: EnvoyTypes, name: str, listener: Message, extension: Message | None
) -> ServedService:
    host, _, port = name.rpartition("|")
    socket = types.to_dict(listener).get("address", {}).get("socket_address", {})
    address = socket.get("address", "")
    shown = f"[{address}]" if ":" in address else address
    proxy = ProxyConfig()
    (first, *_) = types.to_dict(listener)["filter_chains"][0]["filters"]
    native = _NATIVE.get(first["name"])
    routes = first.get("typed_config", {}).get("prefix_routes", {})
    if extension is not None:
        typed = types.to_dict(extension).get("typed_config", {})
        text = typed.get("filter_config", {}).get("value", "{}")
        proxy = json_format.Parse(text, ProxyConfig())
    return ServedService(
        host=host or name,
        port=int(port) if port.isdecimal() else 0,
        protocol=native or proxy.protocol.codec,
        listener=name,
        address=f"{shown}:{socket.get('port_value', 0)}",
        routes=sum(len(table.routes) for table in proxy.route_tables)
        if native is None
        else len(routes.get("routes", ())) + ("catch_all_route" in routes),
    )
