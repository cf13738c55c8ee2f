"""Fields of Envoy's messages in JSON form, each made of one part; ``config`` puts them together."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.envoy.parts import (
    AdsSource,
    ClientTls,
    Health,
    Host,
    OutlierDetection,
    ServerTls,
    Source,
    TcpKeepalive,
    XdsSource,
)

Json: TypeAlias = dict[str, Any]

_MILLIONTHS = 10_000
"""In a percent."""


def type_url(name: str) -> str:
    """What an Any names the message with."""
    return f"type.googleapis.com/{name}"


def text(value: str) -> Json:
    """Configuration for a module as text: it arrives there byte by byte, unlike a Struct, whose
    keys Envoy puts in any order."""
    return {"@type": type_url("google.protobuf.StringValue"), "value": value}


def stat_name(cluster: str) -> str:
    """What a cluster's own metrics are called by. Envoy takes what is before the first dot for the
    name, and the rest for a part of each metric's."""
    return cluster.replace(".", "_")


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def is_address(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def keepalive(keepalive: TcpKeepalive) -> Json:
    """envoy.config.core.v3.TcpKeepalive."""
    fields = {
        "keepalive_probes": keepalive.probes,
        "keepalive_time": keepalive.time,
        "keepalive_interval": keepalive.interval,
    }
    return {name: value for name, value in fields.items() if value is not None}


_LONGEST_EJECTION = 300.0
"""Seconds: Envoy's max_ejection_time by default."""


def outlier_detection(detection: OutlierDetection) -> Json:
    """envoy.config.cluster.v3.OutlierDetection."""
    content: Json = {
        "consecutive_5xx": detection.consecutive_5xx,
        "enforcing_consecutive_5xx": 100 if detection.consecutive_5xx else 0,
        "consecutive_gateway_failure": detection.consecutive_gateway_failure,
        "enforcing_consecutive_gateway_failure": (
            100 if detection.consecutive_gateway_failure else 0
        ),
        "interval": seconds(detection.interval),
        "base_ejection_time": seconds(detection.base_ejection_time),
        "max_ejection_percent": detection.max_ejection_percent,
        # Statistics over hosts need more requests than a connection pool makes.
        "enforcing_success_rate": 0,
    }
    if detection.base_ejection_time > _LONGEST_EJECTION:
        # Envoy's bound must not be less than where it begins.
        content["max_ejection_time"] = seconds(detection.base_ejection_time)
    if detection.failure_percentage:
        content["failure_percentage_threshold"] = detection.failure_percentage
        content["enforcing_failure_percentage"] = 100
    local = detection.consecutive_local_origin_failure
    if local is not None:
        content["split_external_local_origin_errors"] = True
        content["consecutive_local_origin_failure"] = local
        content["enforcing_consecutive_local_origin_failure"] = 100 if local else 0
        content["enforcing_local_origin_success_rate"] = 0
    if detection.always_eject_one_host:
        content["always_eject_one_host"] = True
    return content


def socket_address(address: str, port: int) -> Json:
    """envoy.config.core.v3.Address."""
    return {"socket_address": {"address": address, "port_value": port}}


def config_source(source: Source) -> Json:
    """envoy.config.core.v3.ConfigSource."""
    if isinstance(source, AdsSource):
        return {"ads": {}, "resource_api_version": "V3"}
    if isinstance(source, XdsSource):
        server = xds_server(source.cluster, source.delta)
        return {"api_config_source": server, "resource_api_version": "V3"}
    path = {"path": str(source.path)}
    return {"path_config_source": path, "resource_api_version": "V3"}


def xds_server(cluster: str, delta: bool) -> Json:
    """envoy.config.core.v3.ApiConfigSource."""
    return {
        "api_type": "DELTA_GRPC" if delta else "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [
            {
                "envoy_grpc": {
                    "cluster_name": cluster,
                    # A control plane that was started again is found in a second or two; Envoy's
                    # own pause grows to half a minute.
                    "retry_policy": {
                        "retry_back_off": {"base_interval": "0.25s", "max_interval": "2s"}
                    },
                }
            }
        ],
        "set_node_on_first_message_only": True,
    }


def hash_balancer(policy: ClusterPolicy) -> Json:
    """Of envoy.config.cluster.v3.Cluster: the policy's ring, or a table where it has none."""
    if policy.policy == ClusterPolicy.RING_HASH:
        made: Json = {"lb_policy": "RING_HASH"}
        if size := policy.minimum_ring_size:
            made["ring_hash_lb_config"] = {"minimum_ring_size": size}
        return made
    made = {"lb_policy": "MAGLEV"}
    if size := policy.maglev_table_size:
        made["maglev_lb_config"] = {"table_size": size}
    return made


def fraction(percent: float) -> Json:
    """envoy.config.core.v3.RuntimeFractionalPercent."""
    numerator = round(percent * _MILLIONTHS)
    return {"default_value": {"numerator": numerator, "denominator": "MILLION"}}


def percent_of(fraction: Mapping[str, Any]) -> float:
    """The percentage in one that ``fraction`` has made."""
    return float(fraction.get("default_value", {}).get("numerator", 0)) / _MILLIONTHS


def load_assignment(name: str, hosts: Sequence[Host]) -> Json:
    """envoy.config.endpoint.v3.ClusterLoadAssignment."""
    localities: dict[tuple[int, str, str, str], list[Json]] = {}
    weights: dict[tuple[int, str, str, str], int] = {}
    for host in hosts:
        endpoint: Json = {
            "endpoint": {"address": socket_address(host.address, host.port)},
            "load_balancing_weight": host.weight,
        }
        if host.health is not Health.UNKNOWN:
            endpoint["health_status"] = host.health.value
        if host.workload:
            endpoint["metadata"] = {"filter_metadata": {"istio": {"workload": host.workload}}}
        place = (host.priority, host.region, host.zone, host.sub_zone)
        localities.setdefault(place, []).append(endpoint)
        weights[place] = host.locality_weight
    endpoints = []
    for place in sorted(localities):
        priority, *names = place
        locality: Json = {"priority": priority, "lb_endpoints": localities[place]}
        if weights[place]:
            locality["load_balancing_weight"] = weights[place]
        named = {
            field: name
            for field, name in zip(("region", "zone", "sub_zone"), names, strict=True)
            if name
        }
        if named:
            locality["locality"] = named
        endpoints.append(locality)
    return {"cluster_name": name, "endpoints": endpoints}


def server_tls(tls: ServerTls) -> Json:
    """envoy.config.core.v3.TransportSocket towards clients."""
    common: Json = {"tls_certificates": [certificate(tls.certificate, tls.private_key)]}
    if tls.client_ca is not None:
        common["validation_context"] = {"trusted_ca": {"filename": str(tls.client_ca)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": type_url("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": common,
            "require_client_certificate": tls.client_ca is not None,
        },
    }


def client_tls(tls: ClientTls) -> Json:
    """envoy.config.core.v3.TransportSocket towards hosts."""
    common: Json = _tls_of_mesh(tls) if tls.of_mesh else {}
    if tls.certificate is not None and tls.private_key is not None:
        common["tls_certificates"] = [certificate(tls.certificate, tls.private_key)]
    if tls.ca is not None:
        common["validation_context"] = {
            "trusted_ca": {"filename": str(tls.ca)},
            **_names(tls.subject_alt_names),
        }
        if tls.crl is not None:
            common["validation_context"]["crl"] = {"filename": str(tls.crl)}
    context: Json = {
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": common,
    }
    if tls.sni:
        context["sni"] = tls.sni
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _tls_of_mesh(tls: ClientTls) -> Json:
    """envoy.extensions.transport_sockets.tls.v3.CommonTlsContext, as istiod writes it for TCP."""
    return {
        "alpn_protocols": ["istio"],
        "tls_certificate_sds_secret_configs": [_from_agent("default")],
        "combined_validation_context": {
            "default_validation_context": _names(tls.subject_alt_names),
            "validation_context_sds_secret_config": _from_agent("ROOTCA"),
        },
    }


def _from_agent(name: str) -> Json:
    """envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig: what Istio's agent has, to which
    every sidecar's bootstrap has a cluster."""
    return {
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
            },
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
        },
    }


def _names(names: Sequence[str]) -> Json:
    """What a validation context says of the names that a certificate may have."""
    if not names:
        return {}
    return {
        "match_typed_subject_alt_names": [
            {
                # SPIFFE ids are URIs, as are all names with a scheme.
                "san_type": "URI" if "://" in name else "DNS",
                "matcher": {"exact": name},
            }
            for name in names
        ]
    }


def certificate(certificate: Path, private_key: Path) -> Json:
    """envoy.extensions.transport_sockets.tls.v3.TlsCertificate."""
    return {
        "certificate_chain": {"filename": str(certificate)},
        "private_key": {"filename": str(private_key)},
    }


def merged(content: Json, extra: Mapping[str, Any]) -> Json:
    """``content`` with ``extra`` over it: objects are merged, everything else is replaced."""
    result = dict(content)
    for key, value in extra.items():
        present = result.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            result[key] = merged(present, value)
        else:
            result[key] = value
    return result
