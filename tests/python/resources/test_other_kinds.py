"""ApplicationProtocol, ServiceEntry and DestinationRule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from metaprotocol.diagnostics import Severity
from metaprotocol.resources import load_text
from metaprotocol.resources.service_entry import ServicePort, metaprotocol_of

from tests.python.resources.samples import (
    APPLICATION_PROTOCOL,
    DESTINATION_RULE,
    SERVICE_ENTRY,
    changed,
    load_one,
    only_error,
)


def test_codecs_have_their_own_names_and_aerakis() -> None:
    assert load_one(APPLICATION_PROTOCOL).spec.codec_name == "dubbo"
    plain = changed(APPLICATION_PROTOCOL, "spec.codec", "dubbo")
    assert load_one(plain).spec.codec_name == "dubbo"


def test_application_protocols_belong_to_no_namespace() -> None:
    assert load_one(APPLICATION_PROTOCOL).key == ("ApplicationProtocol", "", "dubbo")
    assert str(load_one(APPLICATION_PROTOCOL).key) == "ApplicationProtocol dubbo"


def test_a_protocol_name_that_no_port_could_have_is_refused_with_one_that_it_could() -> None:
    error = only_error(changed(APPLICATION_PROTOCOL, "spec.protocol", "my-rpc"))
    assert error.field == "spec.protocol"
    assert "myrpc" in error.fix


def test_protocols_have_options_and_limits_of_ours() -> None:
    text = changed(
        APPLICATION_PROTOCOL,
        "spec",
        {
            "protocol": "dubbo",
            "codec": "dubbo",
            "upstreamConnections": "shared",
            "options": {"a": [1, "b", {"c": True}]},
            "idleTimeout": "0s",
            "maxMessageBytes": 1024,
        },
    )
    spec = load_one(text).spec
    assert spec.upstream_connections == "shared"
    assert spec.options == {"a": [1, "b", {"c": True}]}
    assert spec.idle_timeout == timedelta()
    assert spec.max_message_bytes == 1024
    wrong = changed(text, "spec.upstreamConnections", "Shared")
    assert only_error(wrong).fix == 'did you mean "shared"?'


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("tcp-metaprotocol-dubbo", "dubbo"),
        ("tcp-metaprotocol-dubbo-2", "dubbo"),
        ("TCP-MetaProtocol-Dubbo", "dubbo"),
        ("metaprotocol-thrift", "thrift"),
        ("metaprotocol.aeraki.io/dubbo", "dubbo"),
        ("tcp-metaprotocol", ""),
        ("tcp-metaprotocols-dubbo", None),
        ("tcp-dubbo", None),
        ("http", None),
        ("", None),
    ],
)
def test_port_names_say_which_protocol(name: str, protocol: str | None) -> None:
    assert metaprotocol_of(name) == protocol


def test_app_protocol_wins_over_the_port_name() -> None:
    port = ServicePort(
        number=1, name="tcp-metaprotocol-dubbo", app_protocol="metaprotocol.aeraki.io/thrift"
    )
    assert port.metaprotocol == "thrift"
    assert ServicePort(number=1, name="http", app_protocol="tcp-metaprotocol-x").metaprotocol == "x"
    assert ServicePort(number=1, name="tcp-metaprotocol-x", app_protocol="tcp").metaprotocol == "x"


def test_a_port_that_says_metaprotocol_but_not_which_is_refused() -> None:
    error = only_error(changed(SERVICE_ENTRY, "spec.ports.0.name", "tcp-metaprotocol"))
    assert (error.field, error.code) == ("spec.ports[0].name", "no-protocol")


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_version_of_istios_kinds_is_read(version: str) -> None:
    for text in (SERVICE_ENTRY, DESTINATION_RULE):
        loaded = load_one(changed(text, "apiVersion", f"networking.istio.io/{version}"))
        assert loaded.key.name == "orders"


def test_a_service_entry_is_read_with_its_ports_and_endpoints() -> None:
    spec = load_one(SERVICE_ENTRY).spec
    (port,) = spec.ports
    assert (port.number, port.target_port, port.metaprotocol) == (20880, 20881, "dubbo")
    assert [endpoint.address for endpoint in spec.endpoints] == ["10.0.0.1", "10.0.0.2"]
    assert spec.endpoints[1].ports == {"tcp-metaprotocol-dubbo": 20890}
    assert spec.resolution == "STATIC"


@pytest.mark.parametrize(
    ("path", "value", "field", "words"),
    [
        ("spec.hosts", [], "spec.hosts", "at least 1 entry"),
        ("spec.hosts", ["a+b"], "spec.hosts[0]", "DNS name"),
        ("spec.addresses", ["x"], "spec.addresses[0]", "IP address"),
        ("spec.endpoints.0.address", "a.b", "spec.endpoints[0].address", "resolution: STATIC"),
        ("spec.endpoints.0.address", "10.0.0.1:80", "spec.endpoints[0].address", "IP address"),
        ("spec.endpoints.0.address", "unix://x", "spec.endpoints[0].address", "absolute"),
        ("spec.endpoints.0", {}, "spec.endpoints[0].address", "is missing"),
        ("spec.endpoints.0.ports", {"http": 80}, "spec.endpoints[0].ports.http", "is no port"),
        ("spec.endpoints.0.weight", -1, "spec.endpoints[0].weight", "at least 0"),
        ("spec.ports.0.number", 0, "spec.ports[0].number", "at least 1"),
        ("spec.resolution", "STATICS", "spec.resolution", "must be NONE"),
        ("spec.workloadSelector", {"labels": {"a": "b"}}, "spec.workloadSelector", "endpoints"),
    ],
)
def test_a_service_entry_that_cannot_work_is_refused(
    path: str, value: Any, field: str, words: str
) -> None:
    error = only_error(changed(SERVICE_ENTRY, path, value))
    assert error.field == field
    assert words in error.message


def test_two_ports_of_one_name_or_number_are_refused() -> None:
    port = {"number": 20880, "name": "tcp-metaprotocol-dubbo"}
    result = load_text(changed(SERVICE_ENTRY, "spec.ports", [port, port]), "a.yaml")
    assert [item.code for item in result.diagnostics] == ["duplicate-port", "duplicate-port"]


def test_a_destination_rule_is_read_with_its_policies() -> None:
    spec = load_one(DESTINATION_RULE).spec
    policy = spec.traffic_policy
    assert policy.load_balancer.consistent_hash.http_header_name == "user"
    assert policy.connection_pool.tcp.connect_timeout == timedelta(milliseconds=500)
    assert policy.outlier_detection.consecutive_5xx_errors == 5
    assert spec.subsets[1].traffic_policy.load_balancer.simple == "LEAST_REQUEST"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.trafficPolicy.loadBalancer", {"consistentHash": {}}, "says not what to hash"),
        (
            "spec.trafficPolicy.loadBalancer",
            {"consistentHash": {"httpHeaderName": "a", "useSourceIp": True}},
            "exactly one",
        ),
        (
            "spec.trafficPolicy.loadBalancer",
            {"simple": "RANDOM", "consistentHash": {"useSourceIp": True}},
            "one of the two",
        ),
        (
            "spec.trafficPolicy.tls",
            {"mode": "ISTIO_MUTUAL", "privateKey": "k"},
            "must not be given",
        ),
        ("spec.subsets.0.name", "v2", "another subset"),
        ("spec.subsets.0.name", "v.2", "DNS label"),
        ("spec.trafficPolicy.outlierDetection.maxEjectionPercent", 101, "at most 100"),
    ],
)
def test_a_destination_rule_that_contradicts_itself_is_refused(
    path: str, value: Any, words: str
) -> None:
    assert words in only_error(changed(DESTINATION_RULE, path, value)).message


def test_mutual_tls_needs_both_certificate_and_key() -> None:
    text = changed(DESTINATION_RULE, "spec.trafficPolicy.tls", {"mode": "MUTUAL"})
    found = load_text(text, "a.yaml").diagnostics
    assert [item.field.rpartition(".")[2] for item in found] == ["clientCertificate", "privateKey"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec.trafficPolicy.tunnel", {"targetHost": "a", "targetPort": 1},
         "spec.trafficPolicy.tunnel"),
        (
            "spec.trafficPolicy.loadBalancer",
            {"simple": "RANDOM", "backendUtilization": {"weightUpdatePeriod": "10s"}},
            "spec.trafficPolicy.loadBalancer.backendUtilization",
        ),
        (
            "spec.subsets.0.trafficPolicy",
            {"connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}},
            "spec.subsets[0].trafficPolicy.connectionPool.http.h2UpgradePolicy",
        ),
    ],
)  # fmt: skip
def test_istio_fields_that_nothing_honours_are_taken_with_a_warning(
    path: str, value: Any, field: str
) -> None:
    result = load_text(changed(DESTINATION_RULE, path, value), "a.yaml")
    assert len(result.resources) == 1
    (warning,) = result.diagnostics
    assert (warning.severity, warning.code) == (Severity.WARNING, "no-effect")
    assert warning.field == field
    assert warning.fix


def test_what_kubectl_prints_can_be_read_again() -> None:
    metadata = {
        "name": "orders",
        "namespace": "shop",
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "generation": 3,
        "uid": "0",
        "resourceVersion": "12",
        "labels": None,
        "ownerReferences": [{"kind": "X"}],
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    }
    text = changed(SERVICE_ENTRY, "metadata", metadata)
    text = changed(text, "status", {"conditions": [{"type": "x"}]})
    loaded = load_one(text)
    assert loaded.metadata.creation_timestamp == datetime(2026, 1, 31, 12, tzinfo=UTC)
    # Bookkeeping is no change.
    assert loaded == load_one(changed(text, "metadata.resourceVersion", "13"))
    assert loaded == load_one(changed(text, "status", None))
    assert loaded != load_one(changed(text, "metadata.annotations", {"a": "b"}))
    assert loaded != load_one(changed(text, "metadata.creationTimestamp", "2026-01-31T13:00:00Z"))


def test_a_creation_time_that_is_none_is_refused() -> None:
    error = only_error(changed(SERVICE_ENTRY, "metadata.creationTimestamp", "yesterday"))
    assert error.code == "bad-timestamp"


@pytest.mark.parametrize("name", ["Orders", "a_b", "", "a" * 254, "a\n"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    assert only_error(changed(SERVICE_ENTRY, "metadata.name", name)).field == "metadata.name"
