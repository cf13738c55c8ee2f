"""A client of the discovery protocols over real gRPC, which does as Envoy does unless told else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from metaprotocol.envoy.descriptors import EnvoyTypes
from metaprotocol.xds import CDS, ECDS, EDS, LDS, RDS

PREFIX = "type.googleapis.com/"
ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"
SERVICE_OF = {
    CDS: ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"),
    EDS: ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    LDS: ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"),
    RDS: ("envoy.service.route.v3.RouteDiscoveryService", "Routes"),
    ECDS: ("envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
}


class Messages:
    """Makes resources; ``mark`` is content that differs."""

    def __init__(self, types: EnvoyTypes) -> None:
        self.types = types

    def cluster(self, name: str, mark: int = 1, eds: bool = False) -> Message:
        content: dict[str, Any] = {"name": name, "connect_timeout": f"{mark}s"}
        if eds:
            content |= {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
        return self.types.parse("envoy.config.cluster.v3.Cluster", content)

    def listener(self, name: str, mark: int = 1) -> Message:
        return self.types.parse(
            "envoy.config.listener.v3.Listener", {"name": name, "tcp_backlog_size": mark}
        )

    def endpoints(self, name: str, mark: int = 1) -> Message:
        return self.types.parse(
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            {"cluster_name": name, "endpoints": [{"priority": 0, "proximity": mark}]},
        )

    def routes(self, name: str, mark: int = 1) -> Message:
        return self.types.parse(
            "envoy.config.route.v3.RouteConfiguration",
            {"name": name, "virtual_hosts": [{"name": str(mark), "domains": ["*"]}]},
        )

    def extension(self, name: str, mark: int = 1, size: int = 0) -> Message:
        content = {"@type": f"{PREFIX}google.protobuf.StringValue", "value": f"{mark}" + "x" * size}
        return self.types.parse(
            "envoy.config.core.v3.TypedExtensionConfig", {"name": name, "typed_config": content}
        )

    def make(self, type_url: str, name: str, mark: int = 1) -> Message:
        makers: dict[str, Callable[[str, int], Message]] = {
            CDS: self.cluster,
            LDS: self.listener,
            EDS: self.endpoints,
            RDS: self.routes,
            ECDS: self.extension,
        }
        return makers[type_url](name, mark)


def mark_of(resource: Any) -> int:
    """The ``mark`` a resource was made with."""
    match resource.DESCRIPTOR.name:
        case "Cluster":
            return int(resource.connect_timeout.seconds)
        case "Listener":
            return int(resource.tcp_backlog_size.value)
        case "ClusterLoadAssignment":
            return int(resource.endpoints[0].proximity.value)
        case "RouteConfiguration":
            return int(resource.virtual_hosts[0].name)
        case _:
            return int(resource.typed_config.value[2:].decode().rstrip("x"))


class XdsClient:
    """One stream. ``response`` waits for the next response, ``request`` sends anything."""

    def __init__(
        self,
        types: EnvoyTypes,
        port: int,
        *,
        delta: bool,
        only: str | None = None,
        node: str = "node",
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        version: str = "",
        credentials: Any = None,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        self.types = types
        self.delta = delta
        self.only = only
        kind = "Delta" if delta else ""
        self._request = types.message_class(f"envoy.service.discovery.v3.{kind}DiscoveryRequest")
        self._response = types.message_class(f"envoy.service.discovery.v3.{kind}DiscoveryResponse")
        self._node: dict[str, Any] = {"id": node}
        if namespace:
            self._node["metadata"] = {"NAMESPACE": namespace, "LABELS": dict(labels or {})}
        if version:
            major, minor, patch = map(int, version.split("."))
            number = {"major_number": major, "minor_number": minor, "patch": patch}
            self._node["user_agent_build_version"] = {"version": number}
        options = (("grpc.max_receive_message_length", -1), *options)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            options += (("grpc.ssl_target_name_override", "control-plane"),)
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        service, method = (ADS, "AggregatedResources") if only is None else SERVICE_OF[only]
        self._open = self._channel.stream_stream(
            f"/{service}/{'Delta' if delta else 'Stream'}{method}"
        )
        self.call: Any = None
        self._said_node = False

    async def __aenter__(self) -> Self:
        self.call = self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.call.cancel()
        await self._channel.close()

    async def request(self, type_url: str, **fields: Any) -> None:
        """Sends a request; the node goes with the first."""
        content: dict[str, Any] = {"type_url": type_url, **fields}
        if not self._said_node:
            content.setdefault("node", self._node)
            self._said_node = True
        message = self.types.parse(self._request.DESCRIPTOR.full_name, content)
        await self.call.write(message.SerializeToString())

    async def raw(self, data: bytes) -> None:
        await self.call.write(data)

    async def until_it_ends(self) -> None:
        """Reads until StreamEnded."""
        while True:
            await self.response()

    async def response(self, timeout: float = 60.0) -> Response:
        """The next response. StreamEnded if there is none."""
        try:
            async with asyncio.timeout(timeout):
                data = await self.call.read()
        except grpc.aio.AioRpcError as error:
            raise StreamEnded(error.code(), error.details()) from None
        if data is grpc.aio.EOF:
            raise StreamEnded(await self.call.code(), await self.call.details())
        return Response(self.types, self._response.FromString(data))

    async def nothing(self, seconds: float = 0.15) -> None:
        """Fails if a response comes within that time."""
        if (response := await self.response_if_any(seconds)) is not None:
            raise AssertionError(f"a response came: {response.message}")

    async def response_if_any(self, seconds: float) -> Response | None:
        """The next response, if it comes within that time."""
        # A read that is given up would end the call, so it is kept for the next response.
        read = asyncio.ensure_future(self.call.read())
        done, _ = await asyncio.wait({read}, timeout=seconds)
        if done:
            return Response(self.types, self._response.FromString(read.result()))
        original = self.call.read

        async def pending() -> Any:
            self.call.read = original
            return await read

        self.call.read = pending
        return None

    async def ack(self, response: Response, **fields: Any) -> None:
        """Accepts; in the state-of-the-world protocol ``resource_names`` has to be told again."""
        if not self.delta:
            fields.setdefault("version_info", response.version)
        await self.request(response.type_url, response_nonce=response.nonce, **fields)

    async def nack(self, response: Response, message: str, **fields: Any) -> None:
        detail = {"code": 13, "message": message}
        await self.ack(response, error_detail=detail, **{"version_info": "", **fields}
                       if not self.delta else fields)  # fmt: skip


class StreamEnded(Exception):
    def __init__(self, code: Any, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


class Response:
    """A response of either protocol."""

    def __init__(self, types: EnvoyTypes, message: Any) -> None:
        self.message = message
        self.type_url: str = message.type_url
        self.nonce: str = message.nonce
        delta = message.DESCRIPTOR.name.startswith("Delta")
        self.version: str = "" if delta else message.version_info
        self.removed: set[str] = set(message.removed_resources) if delta else set()
        self.versions: dict[str, str] = {}
        self._resources: dict[str, Any] = {}
        for item in message.resources:
            packed = item.resource if delta else item
            resource: Any = types.message_class(packed.type_url.removeprefix(PREFIX))()
            resource.ParseFromString(packed.value)
            name = item.name if delta else getattr(resource, "name", "") or resource.cluster_name
            self._resources[name] = resource
            self.versions[name] = item.version if delta else ""

    @property
    def marks(self) -> dict[str, int]:
        """The mark of each resource, by name; only those made by ``Messages`` have one."""
        return {name: mark_of(resource) for name, resource in self._resources.items()}
