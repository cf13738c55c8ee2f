"""Envoy configuration for MetaProtocol, built from typed parts.

A part (``MetaProtocolListener``, ``Cluster``, ...) says what is wanted. ``ConfigBuilder`` turns it
into the protobuf message of the Envoy at hand, so that a field this Envoy does not know is an error
here and not at start-up. ``to_dict``, ``to_json`` and ``to_yaml`` write messages out.

The shape, and why each setting is there, is documented in envoy_ext/testdata/example.yaml; in
short: a listener with our network filter for clients, the carrier listener through which the module
opens upstream connections, the worker cluster in which it keeps metrics, and ordinary clusters that
have our bridge and load balancing policy.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from google.protobuf.message import Message

from metaprotocol.config.v1 import ClusterPolicy, ProxyConfig, to_json
from metaprotocol.envoy import fields
from metaprotocol.envoy.carrier import (
    CARRIED_PREFIX,
    CARRIER_NAME,
    DESTINATION_HEADER,
    HOSTS_PREFIX,
    carrier_connection_manager,
)
from metaprotocol.envoy.descriptors import DescriptorError, EnvoyTypes
from metaprotocol.envoy.fields import Json
from metaprotocol.envoy.parts import (
    AdsSource,
    Bootstrap,
    Carrier,
    CircuitBreakers,
    ClientTls,
    Cluster,
    Dns,
    FileSource,
    Health,
    Host,
    MetaProtocolListener,
    Module,
    OutlierDetection,
    ServerTls,
    Source,
    TcpHealthCheck,
    TcpKeepalive,
    XdsSource,
)

__all__ = [
    "AdsSource",
    "Bootstrap",
    "Carrier",
    "CircuitBreakers",
    "ClientTls",
    "Cluster",
    "ConfigBuilder",
    "Dns",
    "FileSource",
    "Health",
    "Host",
    "MetaProtocolListener",
    "Module",
    "OutlierDetection",
    "ServerTls",
    "Source",
    "TcpHealthCheck",
    "TcpKeepalive",
    "XdsSource",
]

FILTER_NAME = "metaprotocol"
CARRIER_FILTER_NAME = "metaprotocol.carrier"
WORKER_NAME = "metaprotocol_worker"
WORKER_CLUSTER_TYPE = "metaprotocol.worker"
XDS_NAME = "metaprotocol_xds"

# What connects from there is not redirected by Istio's rules.
_TO_APPLICATION, _TO_APPLICATION_V6 = "127.0.0.6", "::6"

# Which hosts the engine may choose; it has its own panic threshold.
_ANY_HOST: Json = {
    "override_host_status": {"statuses": ["UNKNOWN", "HEALTHY", "DEGRADED", "UNHEALTHY", "TIMEOUT"]}
}

_SOCKET_INTERFACE = "envoy.extensions.network.socket_interface.default_socket_interface"
_NETWORK_FILTER = "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter"
_BRIDGE = "envoy.extensions.upstreams.http.dynamic_modules.v3.Config"
_BALANCING_POLICY = (
    "envoy.extensions.load_balancing_policies.dynamic_modules.v3.DynamicModulesLoadBalancerConfig"
)
_NEEDED = (_NETWORK_FILTER, _BRIDGE, _BALANCING_POLICY)


class ConfigBuilder:
    """Builds messages of the Envoy whose types it is given. Every method raises DescriptorError
    where that Envoy has no such field, and so does making one where it lacks what our module is."""

    def __init__(self, types: EnvoyTypes, module: Module | None = None) -> None:
        if missing := [name for name in _NEEDED if not types.knows(name)]:
            raise DescriptorError(
                f"this Envoy has no {' and no '.join(missing)}, which the module cannot do without"
            )
        self.types = types
        self._module = module or Module()

    # --- whole things

    def bootstrap(self, bootstrap: Bootstrap) -> Message:
        """envoy.config.bootstrap.v3.Bootstrap, with the carrier listener and worker cluster."""
        listeners = [
            self.types.to_dict(
                self.listener(item) if isinstance(item, MetaProtocolListener) else item
            )
            for item in bootstrap.listeners
        ]
        clusters = [
            self.types.to_dict(self.cluster(item) if isinstance(item, Cluster) else item)
            for item in bootstrap.clusters
        ]
        node: Json = {"id": bootstrap.node_id, "cluster": bootstrap.node_cluster}
        if bootstrap.node_locality:
            names = bootstrap.node_locality.split("/", 2)
            node["locality"] = dict(zip(("region", "zone", "sub_zone"), names, strict=False))
        content: Json = {
            "node": node,
            "admin": {
                "address": fields.socket_address(bootstrap.admin_address, bootstrap.admin_port)
            },
            "static_resources": {
                "listeners": [*listeners, self.types.to_dict(self.carrier(bootstrap.carrier))],
                "clusters": [*clusters, self.types.to_dict(self.worker_cluster())],
            },
        }
        dynamic: Json = {}
        if bootstrap.listener_source is not None:
            dynamic["lds_config"] = fields.config_source(bootstrap.listener_source)
        if bootstrap.cluster_source is not None:
            dynamic["cds_config"] = fields.config_source(bootstrap.cluster_source)
        if bootstrap.xds_cluster:
            dynamic["ads_config"] = fields.xds_server(bootstrap.xds_cluster, bootstrap.xds_delta)
        if dynamic:
            content["dynamic_resources"] = dynamic
        extensions = [self._admin_page()] if bootstrap.admin_page else []
        if bootstrap.io_uring:
            extensions.append(self._io_uring())
            content["default_socket_interface"] = _SOCKET_INTERFACE
        if extensions:
            content["bootstrap_extensions"] = extensions
        content["stats_config"] = {"stats_tags": _STATS_TAGS}
        return self.types.parse(
            "envoy.config.bootstrap.v3.Bootstrap", fields.merged(content, bootstrap.extra)
        )

    def listener(self, listener: MetaProtocolListener) -> Message:
        """envoy.config.listener.v3.Listener for clients."""
        chain: Json = {"filters": [self._client_filter(listener)]}
        content: Json = {
            "name": listener.name,
            "address": fields.socket_address(listener.address, listener.port),
            "filter_chains": [chain],
        }
        if listener.tls is not None:
            chain["transport_socket"] = fields.server_tls(listener.tls)
            # Reads the server name before the handshake, for "connection.sni".
            inspector = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            content["listener_filters"] = [
                {
                    "name": "envoy.filters.listener.tls_inspector",
                    "typed_config": {"@type": fields.type_url(inspector)},
                }
            ]
        return self.types.parse(
            "envoy.config.listener.v3.Listener", fields.merged(content, listener.extra)
        )

    def filter_config(self, name: str, proxy: ProxyConfig | str) -> Message:
        """envoy.config.core.v3.TypedExtensionConfig: the filter as ECDS delivers it."""
        return self.types.parse(
            "envoy.config.core.v3.TypedExtensionConfig",
            {"name": name, "typed_config": self._filter(proxy)},
        )

    def cluster(self, cluster: Cluster) -> Message:
        """envoy.config.cluster.v3.Cluster with our bridge and load balancing policy."""
        breakers = cluster.circuit_breakers
        content: Json = {
            "name": cluster.name,
            "connect_timeout": fields.seconds(cluster.connect_timeout),
            "circuit_breakers": {
                "thresholds": [
                    {
                        "max_connections": breakers.max_connections,
                        "max_pending_requests": breakers.max_pending_requests,
                        "max_requests": breakers.max_requests,
                    }
                ]
            },
            **self.cluster_bridge(cluster.policy),
        }
        if (stat_name := fields.stat_name(cluster.name)) != cluster.name:
            content["alt_stat_name"] = stat_name
        if cluster.endpoints is not None:
            content["type"] = "EDS"
            content["eds_cluster_config"] = {"eds_config": fields.config_source(cluster.endpoints)}
        else:
            content["type"] = "STATIC"
            if cluster.dns is not None:
                content["type"] = cluster.dns.value
                content["respect_dns_ttl"] = True
                # "localhost" is 127.0.0.1 to most servers.
                content["dns_lookup_family"] = "V4_PREFERRED"
            content["load_assignment"] = fields.load_assignment(cluster.name, cluster.hosts)
        if cluster.keepalive is not None:
            content["upstream_connection_options"] = {
                "tcp_keepalive": fields.keepalive(cluster.keepalive)
            }
        if cluster.outlier_detection is not None:
            content["outlier_detection"] = fields.outlier_detection(cluster.outlier_detection)
        if cluster.tls is not None:
            content["transport_socket"] = fields.client_tls(cluster.tls)
        if cluster.health_check is not None:
            check = cluster.health_check
            content["health_checks"] = [
                {
                    "interval": fields.seconds(check.interval),
                    "timeout": fields.seconds(check.timeout),
                    "healthy_threshold": check.healthy_threshold,
                    "unhealthy_threshold": check.unhealthy_threshold,
                    "no_traffic_interval": fields.seconds(check.interval),
                    "tcp_health_check": {},
                }
            ]
        return self.types.parse(
            "envoy.config.cluster.v3.Cluster", fields.merged(content, cluster.extra)
        )

    def cluster_bridge(self, policy: ClusterPolicy) -> Json:
        """The fields, in JSON form, that make any cluster one that our filter can use, and nobody
        else."""
        return {**self.cluster_balancing(policy), "upstream_config": self._bridge()}

    def cluster_balancing(self, policy: ClusterPolicy) -> Json:
        """The same for a cluster that others use, too: what leads to it is ``carried_cluster``."""
        return {
            "common_lb_config": dict(_ANY_HOST),
            "load_balancing_policy": self._policy(policy),
        }

    def cluster_reached(self) -> Json:
        """The same for a cluster that keeps its load balancing, whose hosts a ``hosts_cluster``
        tells of."""
        return {"common_lb_config": dict(_ANY_HOST), "upstream_config": self._bridge()}

    def hosts_cluster(self, name: str, endpoints: str, policy: ClusterPolicy) -> Message:
        """envoy.config.cluster.v3.Cluster to which nobody connects: the hosts that the cluster
        ``name`` has, and our policy for them. ``endpoints``: what they are asked for by."""
        return self.types.parse(
            "envoy.config.cluster.v3.Cluster",
            {
                "name": f"{HOSTS_PREFIX}{name}",
                "connect_timeout": "1s",
                "type": "EDS",
                "eds_cluster_config": {
                    "service_name": endpoints,
                    "eds_config": {
                        "ads": {},
                        "resource_api_version": "V3",
                        "initial_fetch_timeout": "5s",
                    },
                },
                "load_balancing_policy": self._policy(policy),
            },
        )

    def carried_cluster(self, name: str) -> Message:
        """envoy.config.cluster.v3.Cluster with our bridge, in front of the cluster ``name``, whose
        hosts, balancing, TLS, health and limits are what counts.

        A bridge on that cluster itself would close every connection of a TCP proxy to it: Envoy
        looks for a pool of connections of the bridge's type there, which none has."""
        return self.types.parse(
            "envoy.config.cluster.v3.Cluster",
            {
                "name": f"{CARRIED_PREFIX}{name}",
                "connect_timeout": "1s",  # of no effect: connections are the other cluster's
                "lb_policy": "CLUSTER_PROVIDED",
                "cluster_type": {
                    "name": "envoy.clusters.aggregate",
                    "typed_config": {
                        "@type": fields.type_url(
                            "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
                        ),
                        "clusters": [name],
                    },
                },
                "upstream_config": self._bridge(),
            },
        )

    def own_cluster(self, name: str, port: int) -> Message:
        """envoy.config.cluster.v3.Cluster with our bridge, in front of the cluster ``name``, for
        which it connects to that port of the pod's own address instead, from where the rules of
        Istio let a sidecar reach its application."""
        return self.types.parse(
            "envoy.config.cluster.v3.Cluster",
            {
                "name": f"{CARRIED_PREFIX}{name}",
                "connect_timeout": fields.seconds(Cluster(name).connect_timeout),
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "original_dst_lb_config": {
                    "use_http_header": True,
                    "http_header_name": DESTINATION_HEADER,
                    "upstream_port_override": port,
                },
                "upstream_bind_config": {
                    "source_address": {"address": _TO_APPLICATION, "port_value": 0},
                    "extra_source_addresses": [
                        {"address": {"address": _TO_APPLICATION_V6, "port_value": 0}}
                    ],
                },
                "upstream_config": self._bridge(),
            },
        )

    def http2_cluster(self, cluster: Cluster) -> Message:
        """envoy.config.cluster.v3.Cluster of a gRPC service: without our bridge, with Envoy's own
        load balancing (``policy`` has no meaning)."""
        http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        plain = self.plain_cluster(cluster)
        plain["typed_extension_protocol_options"] = {
            http: {
                "@type": fields.type_url(http),
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        return self.types.parse(
            "envoy.config.cluster.v3.Cluster", fields.merged(plain, cluster.extra)
        )

    def plain_cluster(self, cluster: Cluster) -> Json:
        """envoy.config.cluster.v3.Cluster in JSON form, without our bridge and load balancing."""
        plain = self.types.to_dict(self.cluster(cluster))
        for field in ("load_balancing_policy", "upstream_config", "common_lb_config"):
            del plain[field]
        return plain

    def xds_cluster(
        self, host: str, port: int, *, name: str = XDS_NAME, tls: ClientTls | None = None
    ) -> Message:
        """envoy.config.cluster.v3.Cluster with the control plane at ``host`` (an address or a
        name), for ``Bootstrap.clusters``; its name is for ``Bootstrap.xds_cluster``."""
        return self.http2_cluster(
            Cluster(
                name,
                [Host(host, port)],
                dns=None if fields.is_address(host) else Dns.STRICT,
                tls=tls,
                connect_timeout=1.0,
                # A control plane that has gone without a word is noticed, and looked for again.
                keepalive=TcpKeepalive(probes=3, time=10, interval=5),
            )
        )

    def load_assignment(self, name: str, hosts: Sequence[Host]) -> Message:
        """envoy.config.endpoint.v3.ClusterLoadAssignment: its hosts, as EDS delivers them."""
        return self.types.parse(
            "envoy.config.endpoint.v3.ClusterLoadAssignment", fields.load_assignment(name, hosts)
        )

    def carrier(self, carrier: Carrier, carried: str = "", own: str = "") -> Message:
        """envoy.config.listener.v3.Listener of the carrier. To clusters whose names begin with
        ``carried`` it gets by their ``carried_cluster``, and to those with ``own`` by their
        ``own_cluster``, in a pod that says its own address."""
        manager = (
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        )
        return self.types.parse(
            "envoy.config.listener.v3.Listener",
            {
                "name": CARRIER_NAME,
                "address": {"pipe": {"path": carrier.address}},
                "connection_balance_config": {"exact_balance": {}},
                "drain_type": "MODIFY_ONLY",
                "filter_chains": [
                    {
                        "filters": [
                            {
                                "name": CARRIER_NAME,
                                "typed_config": {
                                    "@type": fields.type_url(_NETWORK_FILTER),
                                    "dynamic_module_config": self._module_config(),
                                    "filter_name": CARRIER_FILTER_NAME,
                                    "filter_config": fields.text(
                                        json.dumps({"address": carrier.address})
                                    ),
                                },
                            },
                            {
                                "name": "envoy.filters.network.http_connection_manager",
                                "typed_config": {
                                    "@type": fields.type_url(manager),
                                    **carrier_connection_manager(carried, own),
                                },
                            },
                        ]
                    }
                ],
            },
        )

    def worker_cluster(self) -> Message:
        """envoy.config.cluster.v3.Cluster without hosts, for metrics and Envoy's own events."""
        return self.types.parse(
            "envoy.config.cluster.v3.Cluster",
            {
                "name": WORKER_NAME,
                "connect_timeout": "1s",
                "lb_policy": "CLUSTER_PROVIDED",
                "cluster_type": {
                    "name": "envoy.clusters.dynamic_modules",
                    "typed_config": {
                        "@type": fields.type_url(
                            "envoy.extensions.clusters.dynamic_modules.v3.ClusterConfig"
                        ),
                        "dynamic_module_config": self._module_config(),
                        "cluster_name": WORKER_CLUSTER_TYPE,
                    },
                },
            },
        )

    # --- writing

    def to_dict(self, message: Message) -> Json:
        """The message's JSON form."""
        return self.types.to_dict(message)

    def to_json(self, message: Message) -> str:
        """The message as indented JSON text."""
        return json.dumps(self.to_dict(message), indent=2) + "\n"

    def to_yaml(self, message: Message) -> str:
        """The message as YAML text."""
        return yaml.safe_dump(self.to_dict(message), sort_keys=False, width=100)

    def write_resources(self, path: Path, version: str, resources: Sequence[Message]) -> None:
        """Writes the resources where a FileSource reads them, in one step."""
        content = {
            "version_info": version,
            "resources": [
                {"@type": fields.type_url(item.DESCRIPTOR.full_name), **self.to_dict(item)}
                for item in resources
            ],
        }
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            json.dump(content, file)
        os.replace(file.name, path)  # Envoy watches for moves, not for writes

    # --- parts

    def _module_config(self) -> Json:
        # An Envoy that knows paths takes the path; the others look for the name in
        # $ENVOY_DYNAMIC_MODULES_SEARCH_PATH.
        config: Json = {"do_not_close": True, "name": "metaprotocol"}
        if self._module.path is not None:
            config["module"] = {"local": {"filename": str(self._module.path.resolve())}}
        return config

    def _bridge(self) -> Json:
        return {
            "name": "envoy.upstreams.http.dynamic_modules",
            "typed_config": {
                "@type": fields.type_url(_BRIDGE),
                "dynamic_module_config": self._module_config(),
                "bridge_name": FILTER_NAME,
            },
        }

    def _client_filter(self, listener: MetaProtocolListener) -> Json:
        if (listener.proxy is None) == (listener.discovery is None):
            raise ValueError(f"listener {listener.name!r} needs either proxy or discovery")
        if listener.discovery is not None:
            return {
                "name": listener.name,
                "config_discovery": {
                    "config_source": fields.config_source(listener.discovery),
                    "type_urls": [fields.type_url(_NETWORK_FILTER)],
                },
            }
        proxy = listener.proxy
        assert proxy is not None
        if isinstance(proxy, ProxyConfig) and not proxy.listener_name:
            proxy = ProxyConfig.FromString(proxy.SerializeToString())
            proxy.listener_name = listener.name
        return {"name": FILTER_NAME, "typed_config": self._filter(proxy)}

    def _filter(self, proxy: ProxyConfig | str) -> Json:
        return {
            "@type": fields.type_url(_NETWORK_FILTER),
            "dynamic_module_config": self._module_config(),
            "filter_name": FILTER_NAME,
            "terminal_filter": True,
            "filter_config": fields.text(proxy if isinstance(proxy, str) else to_json(proxy)),
        }

    def _admin_page(self) -> Json:
        extensions = "envoy.extensions.bootstrap.dynamic_modules.v3"
        return {
            "name": "envoy.bootstrap.dynamic_modules",
            "typed_config": {
                "@type": fields.type_url(f"{extensions}.DynamicModuleBootstrapExtension"),
                "dynamic_module_config": self._module_config(),
                "extension_name": FILTER_NAME,
            },
        }

    def _io_uring(self) -> Json:
        interfaces = "envoy.extensions.network.socket_interface.v3"
        options: Json = {}
        known = self.types.message_class(f"{interfaces}.IoUringOptions").DESCRIPTOR.fields_by_name
        if "enable_multishot_receive" in known:
            options["enable_multishot_receive"] = True
        return {
            "name": _SOCKET_INTERFACE,
            "typed_config": {
                "@type": fields.type_url(f"{interfaces}.DefaultSocketInterface"),
                "io_uring_options": options,
            },
        }

    def _policy(self, policy: ClusterPolicy) -> Json:
        return {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.dynamic_modules",
                        "typed_config": {
                            "@type": fields.type_url(_BALANCING_POLICY),
                            "dynamic_module_config": self._module_config(),
                            "lb_policy_name": FILTER_NAME,
                            "lb_policy_config": fields.text(to_json(policy)),
                        },
                    }
                }
            ]
        }


# Where Envoy allows a cluster no metrics with labels, the module's are named like those (see
# envoy_ext/worker/metric_writer.h), and this makes labels of the names again.
_STATS_TAGS: list[Json] = [
    {"tag_name": name, "regex": rf"^dynamicmodulescustom\.metaprotocol\.\w+{regex}"}
    for name, regex in (
        ("protocol", r"(\.protocol\.(.+?))\.(?:route|filter)\."),
        ("route", r"\.protocol\..+?(\.route\.(.+))\.cluster\."),
        ("cluster", r"\.protocol\..+(\.cluster\.(.+))$"),
        ("filter", r"\.protocol\..+?(\.filter\.(.+))\.metric\."),
        ("metric", r"\.protocol\..+\.filter\..+(\.metric\.(.+))$"),
    )
]
