"""The configuration of the Envoy under test: every proxy of the plan, over the same servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from metaprotocol.config.v1 import Condition, Protocol, ProxyConfig, Route, RouteTable
from metaprotocol.envoy.config import (
    Bootstrap,
    Cluster,
    ConfigBuilder,
    Host,
    MetaProtocolListener,
    Module,
)
from metaprotocol.envoy.descriptors import EnvoyTypes

from bench.plan import Proxy

Json = dict[str, Any]

INTERFACE = "org.apache.dubbo.samples.basic.api.DemoService"
METHOD = "sayHello"

_NETWORK = "envoy.extensions.filters.network"
# Not Envoy's 1 MiB: generic_proxy closes connections over messages that are larger than that.
_BUFFER_LIMIT = 4 << 20
_LIMITS = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 1_000_000}


@dataclass(frozen=True)
class ServerPorts:
    """Where the servers listen, on loopback."""

    dubbo: int
    thrift: int
    http1: int


def bootstrap(
    types: EnvoyTypes,
    module: Path,
    ports: ServerPorts,
    proxies: Sequence[Proxy],
    *,
    clusters: Sequence[Cluster] = (),
    extra: Mapping[str, Any] | None = None,
    io_uring: bool = False,
) -> Json:
    """Envoy's bootstrap with a listener per proxy, and with ``clusters`` that none of them uses;
    ``extra`` is merged into it."""
    builder = ConfigBuilder(types, Module(module))
    listeners: list[MetaProtocolListener | Message] = []
    for proxy in proxies:
        if proxy.name == "metaprotocol":
            listeners.append(MetaProtocolListener(proxy.listener, _proxy_config(proxy)))
        else:
            listeners.append(_plain_listener(types, proxy))
    return types.to_dict(
        builder.bootstrap(
            Bootstrap(
                listeners=listeners,
                clusters=[
                    # Ours first: with the bridge and the load balancing policy.
                    Cluster("meta_dubbo", hosts=[Host("127.0.0.1", ports.dubbo)]),
                    Cluster("meta_thrift", hosts=[Host("127.0.0.1", ports.thrift)]),
                    _plain_cluster(types, "dubbo", ports.dubbo),
                    _plain_cluster(types, "thrift", ports.thrift),
                    _plain_cluster(types, "http1", ports.http1),
                    *clusters,
                ],
                extra=extra or {},
                io_uring=io_uring,
            )
        )
    )


def _names(name: str, count: int) -> list[str]:
    """``count`` names, of which only the last is the one that is asked for."""
    return [*(f"{name}{index}" for index in range(count - 1)), name]


def _proxy_config(proxy: Proxy) -> ProxyConfig:
    conditions: Callable[[str], list[Condition]]
    if proxy.protocol == "dubbo":
        wanted = INTERFACE

        def conditions(name: str) -> list[Condition]:
            found = [Condition(key="interface", exact=name), Condition(key="method", exact=METHOD)]
            # One that no request has.
            return [*found, *([Condition(key="lane", absent=True)] if proxy.attachments else [])]

    else:
        wanted = METHOD

        def conditions(name: str) -> list[Condition]:
            return [Condition(key="method", exact=name)]

    routes = [
        Route(name=f"route-{index}", match=conditions(name), cluster=f"meta_{proxy.protocol}")
        for index, name in enumerate(_names(wanted, proxy.routes))
    ]
    return ProxyConfig(
        name=proxy.listener,
        protocol=Protocol(codec=proxy.protocol),
        route_tables=[RouteTable(name="default", routes=routes)],
    )


def _plain_cluster(types: EnvoyTypes, name: str, port: int) -> Message:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return types.parse(
        "envoy.config.cluster.v3.Cluster",
        {
            "name": name,
            "connect_timeout": "5s",
            "per_connection_buffer_limit_bytes": _BUFFER_LIMIT,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
            "circuit_breakers": {"thresholds": [_LIMITS]},
        },
    )


def _plain_listener(types: EnvoyTypes, proxy: Proxy) -> Message:
    filters: dict[str, Callable[[Proxy], Json]] = {
        "tcp_proxy": _tcp_proxy,
        "dubbo_proxy": _dubbo_proxy,
        "thrift_proxy": _thrift_proxy,
        "generic_proxy": _generic_proxy,
        "http2_routes": _http2_routes,
    }
    return types.parse(
        "envoy.config.listener.v3.Listener",
        {
            "name": proxy.listener,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "per_connection_buffer_limit_bytes": _BUFFER_LIMIT,
            "filter_chains": [
                {"filters": [{"name": proxy.name, "typed_config": filters[proxy.name](proxy)}]}
            ],
        },
    )


def _typed(kind: str, /, **content: Any) -> Json:
    return {"@type": f"type.googleapis.com/{_NETWORK}.{kind}", **content}


def _tcp_proxy(proxy: Proxy) -> Json:
    return _typed(
        "tcp_proxy.v3.TcpProxy",
        stat_prefix=proxy.listener,
        cluster=proxy.protocol,
    )


def _dubbo_proxy(proxy: Proxy) -> Json:
    return _typed(
        "dubbo_proxy.v3.DubboProxy",
        stat_prefix=proxy.listener,
        protocol_type="Dubbo",
        serialization_type="Hessian2",
        route_config=[
            {
                "name": name,
                "interface": name,
                "routes": [
                    {
                        "match": {"method": {"name": {"exact": METHOD}}},
                        "route": {"cluster": "dubbo"},
                    }
                ],
            }
            for name in _names(INTERFACE, proxy.routes)
        ],
    )


def _thrift_proxy(proxy: Proxy) -> Json:
    return _typed(
        "thrift_proxy.v3.ThriftProxy",
        stat_prefix=proxy.listener,
        transport="FRAMED",
        protocol="BINARY",
        route_config={
            "name": "routes",
            "routes": [
                {"match": {"method_name": name}, "route": {"cluster": "thrift"}}
                for name in _names(METHOD, proxy.routes)
            ],
        },
    )


def _generic_proxy(proxy: Proxy) -> Json:
    def matcher(interface: str) -> Json:
        def equals(kind: str, value: str) -> Json:
            return {
                "single_predicate": {
                    "input": {
                        "name": kind,
                        "typed_config": _typed(f"generic_proxy.matcher.v3.{kind}MatchInput"),
                    },
                    "value_match": {"exact": value},
                }
            }

        return {
            "predicate": {
                "and_matcher": {
                    "predicate": [equals("Service", interface), equals("Method", METHOD)]
                }
            },
            "on_match": {
                "action": {
                    "name": "route",
                    "typed_config": _typed(
                        "generic_proxy.action.v3.RouteAction", name=interface, cluster="dubbo"
                    ),
                }
            },
        }

    matchers = [matcher(name) for name in _names(INTERFACE, proxy.routes)]
    return _typed(
        "generic_proxy.v3.GenericProxy",
        stat_prefix=proxy.listener,
        codec_config={
            "name": "dubbo",
            "typed_config": _typed("generic_proxy.codecs.dubbo.v3.DubboCodecConfig"),
        },
        filters=[
            {
                "name": "envoy.filters.generic.router",
                "typed_config": _typed("generic_proxy.router.v3.Router"),
            }
        ],
        route_config={
            "name": "routes",
            "virtual_hosts": [
                {
                    "name": "all",
                    "hosts": ["*"],
                    "routes": {"matcher_list": {"matchers": matchers}},
                }
            ],
        },
    )


def _http2_routes(proxy: Proxy) -> Json:
    return _typed(
        "http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=proxy.listener,
        codec_type="HTTP2",
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        http2_protocol_options={
            # Large enough that the client need not wait for WINDOW_UPDATE frames.
            "initial_stream_window_size": 16 << 20,
            "initial_connection_window_size": (1 << 31) - 1,
        },
        route_config={
            "name": "routes",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": f"/{name}/{METHOD}"}, "route": {"cluster": "http1"}}
                        for name in _names(INTERFACE, proxy.routes)
                    ],
                }
            ],
        },
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
    )
