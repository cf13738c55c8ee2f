"""istiod's part in a sidecar or gateway, as far as it concerns EnvoyFilters: applied to the
listeners and clusters that it would make, and served over one ADS stream, as proxies have it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message
from metaprotocol.envoy.carrier import HOSTS_PREFIX
from metaprotocol.envoy.config import AdsSource, Bootstrap, ConfigBuilder
from metaprotocol.envoy.process import EnvoyProcess
from metaprotocol.translate.naming import (
    CLUSTER,
    ENDPOINTS,
    FILTER,
    LISTENER,
    parse_cluster_name,
)
from metaprotocol.xds import XdsServer

Json = dict[str, Any]

MESSAGES = {
    "LISTENER": "envoy.config.listener.v3.Listener",
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
    "EXTENSION_CONFIG": "envoy.config.core.v3.TypedExtensionConfig",
}


def tcp_listener(name: str, address: str, port: int, cluster: str) -> Json:
    """A listener as istiod makes one for a TCP port."""
    proxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [
            {
                "filter_chain_match": {"destination_port": port},
                "filters": [
                    {
                        "name": "envoy.filters.network.tcp_proxy",
                        "typed_config": {
                            "@type": f"type.googleapis.com/{proxy}",
                            "stat_prefix": cluster,
                            "cluster": cluster,
                        },
                    }
                ],
            }
        ],
    }


def cluster(name: str, ports: Sequence[int]) -> Json:
    """A cluster as istiod makes one, with endpoints on this machine."""
    endpoints = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}
            },
            "load_balancing_weight": 1,
        }
        for port in ports
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        # As for a rule with consistentHash, which is what differs most from our own policy.
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 1024},
        "common_lb_config": {},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"load_balancing_weight": 1, "lb_endpoints": endpoints}],
        },
    }


SIDECAR = ("SIDECAR_OUTBOUND", "SIDECAR_INBOUND")
GATEWAY = ("GATEWAY",)


class Istiod:
    """Serves a proxy, as an asynchronous context manager."""

    def __init__(
        self,
        builder: ConfigBuilder,
        listeners: Sequence[Json],
        clusters: Sequence[Json],
        contexts: Sequence[str] = SIDECAR,
    ) -> None:
        """``contexts``: those of patches that are for it."""
        self._contexts = contexts
        self._builder = builder
        self._listeners = listeners
        self._clusters = clusters
        self.server = XdsServer(builder.types)

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.server.stop()

    def bootstrap(self) -> Json:
        """That of a sidecar: everything comes by ADS, and the only static cluster leads to it."""
        xds = self._builder.xds_cluster("127.0.0.1", self.server.port, name="xds-grpc")
        made = self._builder.to_dict(
            self._builder.bootstrap(
                Bootstrap(
                    clusters=[xds],
                    listener_source=AdsSource(),
                    cluster_source=AdsSource(),
                    xds_cluster="xds-grpc",
                )
            )
        )
        # istiod's bootstrap knows nothing of ours.
        made["static_resources"] = {"clusters": [self._builder.to_dict(xds)]}
        return made

    @asynccontextmanager
    async def proxy(
        self, objects: Iterable[Json], filters: dict[str, Message | None] | None = None
    ) -> AsyncIterator[EnvoyProcess]:
        """A running Envoy that gets all this, first with these objects, but for these filters."""
        envoy = EnvoyProcess(self.bootstrap())
        self.apply(objects)
        if filters is not None:
            self.serve(filters)
        await asyncio.to_thread(envoy.start)
        try:
            yield envoy
            envoy.check()
        finally:
            await asyncio.to_thread(envoy.stop)
            envoy.clean()

    def apply(self, objects: Iterable[Json], labels: Mapping[str, str] | None = None) -> None:
        """Takes EnvoyFilters in place of all former ones. ``labels``: the workload's; None: it has
        all that any of them wants."""
        made = self._patched(
            sorted(
                (item for item in objects if _is_for(item, labels)),
                key=lambda item: item["spec"]["priority"],
            )
        )
        self.server.apply(
            {
                ENDPOINTS: self._endpoints(made["CLUSTER"]),
                **{
                    url: {
                        item["name"]: self._builder.types.parse(MESSAGES[kind], item)
                        for item in made[kind]
                    }
                    for kind, url in (
                        ("LISTENER", LISTENER),
                        ("CLUSTER", CLUSTER),
                        ("EXTENSION_CONFIG", FILTER),
                    )
                },
            }
        )

    def _endpoints(self, clusters: Iterable[Json]) -> dict[str, Message]:
        """Those of clusters that say which hosts others have, by what they are asked for by."""
        own = {item["name"]: item for item in clusters}
        made = {}
        for name, item in own.items():
            if name.startswith(HOSTS_PREFIX):
                asked = item["eds_cluster_config"]["service_name"]
                found = own[name.removeprefix(HOSTS_PREFIX)]["load_assignment"]
                made[asked] = self._builder.types.parse(
                    "envoy.config.endpoint.v3.ClusterLoadAssignment",
                    {**found, "cluster_name": asked},
                )
        return made

    def as_static(self, objects: Iterable[Json]) -> Bootstrap:
        """The same without a stream, where no filter of ours is among it."""
        made = self._patched([item for item in objects if item["kind"] == "EnvoyFilter"])
        assert not made["EXTENSION_CONFIG"]
        parsed = {
            kind: [self._builder.types.parse(MESSAGES[kind], item) for item in made[kind]]
            for kind in ("LISTENER", "CLUSTER")
        }
        return Bootstrap(listeners=parsed["LISTENER"], clusters=parsed["CLUSTER"])

    def serve(self, filters: dict[str, Message | None]) -> None:
        """Serves other filters, by name, than those of the EnvoyFilters."""
        self.server.apply({FILTER: filters})

    def _patched(self, objects: Iterable[Json]) -> dict[str, list[Json]]:
        made: dict[str, list[Json]] = {
            "LISTENER": list(copy.deepcopy(self._listeners)),
            "CLUSTER": list(copy.deepcopy(self._clusters)),
            "EXTENSION_CONFIG": [],
        }
        patches = [
            patch
            for item in objects
            for patch in item["spec"]["configPatches"]
            if patch["match"]["context"] in self._contexts
        ]
        gone = [
            patch["match"]["cluster"]
            for patch in patches
            if (patch["applyTo"], patch["patch"]["operation"]) == ("CLUSTER", "REMOVE")
        ]
        made["CLUSTER"] = [
            item
            for item in made["CLUSTER"]
            if not any(_is_meant(match, item["name"]) for match in gone)
        ]
        for patch in patches:
            if patch["patch"]["operation"] == "ADD":
                made[patch["applyTo"]].append(copy.deepcopy(patch["patch"]["value"]))
        for patch in patches:
            value = copy.deepcopy(patch["patch"].get("value"))
            match patch["applyTo"], patch["patch"]["operation"]:
                case "CLUSTER", "MERGE":
                    for item in made["CLUSTER"]:
                        if _is_meant(patch["match"]["cluster"], item["name"]):
                            self._merge(item, value)
                case "NETWORK_FILTER", "REPLACE":
                    _replace(made["LISTENER"], patch["match"]["listener"], value)
                case "NETWORK_FILTER", "INSERT_BEFORE":
                    _replace(made["LISTENER"], patch["match"]["listener"], value, before=True)
        for kind, items in made.items():
            names = [item["name"] for item in items]
            assert len(names) == len(set(names)), f"Envoy refuses a {kind} that comes twice"
        return made

    def _merge(self, item: Json, value: Json) -> None:
        message: Any = self._builder.types.parse(MESSAGES["CLUSTER"], item)
        message.MergeFrom(self._builder.types.parse(MESSAGES["CLUSTER"], value))
        assert len(message.load_balancing_policy.policies) <= 1, "it was patched twice"
        item.clear()
        item.update(self._builder.types.to_dict(message))


def _is_for(item: Json, labels: Mapping[str, str] | None) -> bool:
    if item["kind"] != "EnvoyFilter":
        return False
    wanted = item["spec"].get("workloadSelector", {}).get("labels", {})
    return labels is None or labels.items() >= wanted.items()


def _is_meant(match: Json, name: str) -> bool:
    if "name" in match:
        return bool(match["name"] == name)
    parsed = parse_cluster_name(name)
    return parsed is not None and (parsed[0], parsed[2]) == (match["portNumber"], match["service"])


def _replace(listeners: list[Json], match: Json, value: Json, *, before: bool = False) -> None:
    chain_match = match["filterChain"]
    for listener in listeners:
        number = listener["address"].get("socket_address", {}).get("port_value")
        if match.get("name", listener["name"]) != listener["name"]:
            continue
        if match.get("portNumber", number) != number:
            continue
        for chain in listener["filter_chains"]:
            conditions = chain.get("filter_chain_match", {})
            port, names = conditions.get("destination_port"), conditions.get("server_names", ())
            if "sni" in chain_match and chain_match["sni"] not in names:
                continue
            if chain_match.get("destinationPort", port) == port:
                made = []
                for item in chain["filters"]:
                    meant = item["name"] == chain_match["filter"]["name"]
                    made += [value] if meant else []
                    made += [item] if before or not meant else []
                chain["filters"] = made
