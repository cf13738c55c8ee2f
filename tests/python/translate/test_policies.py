"""DestinationRules: what holds for a cluster, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.audience import Clients
from metaprotocol.config.v1 import ClusterPolicy
from metaprotocol.engine import Engine
from metaprotocol.resources import DestinationRule
from metaprotocol.translate import Options, Target
from metaprotocol.translate.destination_rules import host_policies
from metaprotocol.translate.naming import CLUSTER, ENDPOINTS, FILTER
from metaprotocol.translate.options import system_ca

from tests.python.translate.support import (
    ORDERS,
    Translated,
    case_names,
    case_text,
    envoy_types,
    policy_of,
    read,
    router,
    rule,
    service,
    translated,
    written_at,
)
from tests.python.translate.test_incremental import World

BASE = f"outbound|20880||{ORDERS}"


ALONE = Options(respect_export_to=False)


def ruled(policy: str, *, host: str = "", namespace: str = "shop") -> Translated:
    spec = f"  trafficPolicy: {policy}"
    return translated(service() + rule(spec, host=host, namespace=namespace))


@pytest.mark.parametrize(
    ("simple", "policy"),
    [
        ("LEAST_REQUEST", "LEAST_REQUEST"),
        ("LEAST_CONN", "LEAST_REQUEST"),
        ("UNSPECIFIED", "LEAST_REQUEST"),
        ("RANDOM", "RANDOM"),
    ],
)
def test_simple_load_balancers(simple: str, policy: str) -> None:
    assert ruled(f"{{loadBalancer: {{simple: {simple}}}}}").policy(BASE) == {"policy": policy}


def test_round_robin_is_the_engines_default() -> None:
    assert ruled("{loadBalancer: {simple: ROUND_ROBIN}}").policy(BASE) == {}
    assert ClusterPolicy().policy == ClusterPolicy.ROUND_ROBIN


def test_without_rule_least_request_is_used_as_in_istio() -> None:
    assert translated(service()).policy(BASE) == {"policy": "LEAST_REQUEST"}


def test_consistent_hash_makes_the_route_hash() -> None:
    result = ruled("{loadBalancer: {consistentHash: {httpHeaderName: user, maglev: {}}}}")
    assert result.policy(BASE) == {"policy": "MAGLEV"}
    assert result.routes(f"{ORDERS}|20880")[0]["hash_on"] == ["user"]


def test_the_old_place_of_the_ring_size_counts() -> None:
    hashing = "{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 99}}}"
    assert ruled(hashing).policy(BASE) == {"policy": "RING_HASH", "minimum_ring_size": 99}


def test_a_retry_budget_is_the_engines() -> None:
    found = ruled("{retryBudget: {percent: 7.5, minRetryConcurrency: 4}}").policy(BASE)
    assert (found["retry_budget_percent"], found["min_retries_in_flight"]) == (7.5, 4)
    both = "{retryBudget: {}, connectionPool: {http: {maxRetries: 100}}}"
    found = ruled(both).policy(BASE)
    assert (found["retry_budget_percent"], found["min_retries_in_flight"]) == (20, 3)


def test_an_old_error_count_counts() -> None:
    detection = ruled("{outlierDetection: {consecutiveErrors: 3}}").policy(BASE)
    assert detection["outlier_detection"]["consecutive_errors"] == 3


def test_an_error_count_of_zero_turns_its_detection_off() -> None:
    found = ruled("{outlierDetection: {consecutive5xxErrors: 0}}").policy(BASE)
    assert found["outlier_detection"]["consecutive_errors"] == 0


def test_what_the_engine_detects_envoy_does_not_as_well() -> None:
    found = ruled("{outlierDetection: {}}")
    assert "outlier_detection" not in found.cluster(BASE)
    assert found.policy(BASE)["outlier_detection"] == {
        "consecutive_errors": 5,
        "consecutive_gateway_errors": 0,
        "failure_percentage": 0,
        "interval": "10s",
        "base_ejection_time": "30s",
        "max_ejection_percent": 10,
    }


def test_failures_can_be_told_by_the_protocols_own_statuses() -> None:
    text = rule("  trafficPolicy: {outlierDetection: {}}").replace(
        "metadata: {", "metadata: {annotations: {metaprotocol.aeraki.io/outlier-statuses: %s}, "
    )
    found = translated(service() + text % '"80, -100"')
    assert found.policy(BASE)["outlier_detection"]["status_codes"] == [80, -100]
    assert found.codes == []
    found = translated(service() + text % '"80, all"')
    assert "status_codes" not in found.policy(BASE)["outlier_detection"]
    assert found.codes == ["bad-statuses"]


def test_requests_of_high_priority_have_bounds_of_their_own() -> None:
    to = f"route: [{{destination: {{host: {ORDERS}}}}}]"
    routes = f"[{{priority: HIGH, {to}}}, {{{to}}}]"
    first, second = translated(service() + router(routes)).routes(f"{ORDERS}|20880")
    assert first["priority"] == "HIGH"
    assert "priority" not in second

    def bounded(policy: str, annotation: str) -> Translated:
        text = rule(policy).replace(
            "metadata: {",
            f"metadata: {{annotations: {{metaprotocol.aeraki.io/high-priority: {annotation}}}, ",
        )
        return translated(service() + text)

    pool = "{tcp: {maxConnections: 7}, http: {http1MaxPendingRequests: 8, http2MaxRequests: 9}}"
    own = '"maxConnections=3, http1MaxPendingRequests = 4,http2MaxRequests=5, maxRetries=6"'
    found = bounded(f"  trafficPolicy: {{connectionPool: {pool}}}", own)
    assert found.codes == []
    assert found.policy(BASE)["high_priority"] == {
        "max_connections": 3,
        "max_pending_requests": 4,
        "max_requests_in_flight": 5,
        "retry_budget_percent": 0.0,
        "min_retries_in_flight": 6,
    }
    assert found.policy(BASE)["max_connections"] == 7
    (threshold,) = found.cluster(BASE)["circuit_breakers"]["thresholds"]
    assert threshold["max_connections"] == 10
    assert threshold["max_pending_requests"] == 12

    alone = bounded("  subsets: []", '"http2MaxRequests=5"')
    assert alone.policy(BASE)["high_priority"] == {"max_requests_in_flight": 5}
    for wrong in ('"http2MaxRequests=0"', '"maxRetries=1, maxRetries=2"', '"other=1"', '""'):
        found = bounded("  subsets: []", wrong)
        assert found.codes == ["bad-high-priority"]
        assert "high_priority" not in found.policy(BASE)


def test_outlier_detection_without_health_percentage_never_panics() -> None:
    assert ruled("{outlierDetection: {}}").policy(BASE)["panic_threshold_percent"] == 0


def test_zero_in_a_connection_pool_means_unlimited() -> None:
    pool = "{connectionPool: {tcp: {maxConnections: 0}, http: {http2MaxRequests: 0}}}"
    assert ruled(pool).cluster(BASE) == translated(service()).cluster(BASE)


def test_a_connect_timeout_holds_for_envoy_and_for_the_engine() -> None:
    result = ruled("{connectionPool: {tcp: {connectTimeout: 250ms}}}")
    assert result.cluster(BASE)["connect_timeout"] == "0.250s"
    assert result.policy(BASE)["connect_timeout"] == "0.250s"


def test_a_rule_by_short_name_is_for_its_own_namespace() -> None:
    random = "{loadBalancer: {simple: RANDOM}}"
    assert ruled(random, host="orders").policy(BASE) == {"policy": "RANDOM"}
    elsewhere = ruled(random, host="orders", namespace="elsewhere")
    assert elsewhere.policy(BASE) == {"policy": "LEAST_REQUEST"}
    assert elsewhere.codes == ["no-host"]


RANDOM = "  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n"


def test_for_one_envoy_a_rule_of_another_namespace_counts_where_there_is_no_nearer_one() -> None:
    text = service() + rule(RANDOM, namespace="clients")
    assert translated(text, ALONE).policy(BASE) == {"policy": "RANDOM"}
    nearer = rule("  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}")
    result = translated(text + nearer, ALONE)
    assert result.policy(BASE) == {}
    assert [item.object for item in result.said("rule-conflict")] == [
        "DestinationRule clients/orders"
    ]


def test_a_rule_of_another_namespace_changes_nothing_for_many_envoys() -> None:
    result = ruled("{loadBalancer: {simple: RANDOM}}", namespace="clients")
    assert result.policy(BASE) == {"policy": "LEAST_REQUEST"}
    assert result.codes == []


def test_the_root_namespace_has_rules_for_every_service() -> None:
    result = ruled("{loadBalancer: {simple: RANDOM}}", namespace="istio-system")
    assert result.policy(BASE) == {"policy": "RANDOM"}


@pytest.mark.parametrize("namespace", ["stranger", "istio-system"])
@pytest.mark.parametrize("export", ["['.']", "['~']", "[other]"])
def test_a_rule_that_is_not_exported_to_clients_has_no_effect_on_them(
    namespace: str, export: str
) -> None:
    rules = rule(f"{RANDOM}  exportTo: {export}\n", namespace=namespace)
    result = translated(service() + rules, ALONE)
    assert result.policy(BASE) == {"policy": "LEAST_REQUEST"}
    (told,) = result.said("rule-not-exported")
    assert told.field == "spec.exportTo"
    many = translated(service() + rules)
    assert policies(many)[""] == many.policy(BASE) == {"policy": "LEAST_REQUEST"}


def test_a_rule_that_nobody_sees_is_told_of() -> None:
    result = translated(service() + rule(f"{RANDOM}  exportTo: ['~']\n"))
    assert result.codes == ["rule-not-exported"]


@pytest.mark.parametrize("export", ["['.']", "[shop]", "['*']", "[other, shop]"])
def test_a_rule_that_is_exported_to_clients_holds_for_them(export: str) -> None:
    text = service() + rule(f"{RANDOM}  exportTo: {export}\n")
    assert translated(text, ALONE).policy(BASE) == {"policy": "RANDOM"}
    result = translated(text)
    everyone = "*" in export
    assert policies(result)[""] == {"policy": "RANDOM" if everyone else "LEAST_REQUEST"}
    in_shop = policies(result).get("shop", policies(result)[""])
    assert in_shop == {"policy": "RANDOM"}
    assert result.codes == []


def policies(result: Translated, name: str = BASE) -> dict[str, dict[str, Any]]:
    """Namespace of clients, with their labels, to the policy of a cluster; "": of all others."""
    made = result.update.find(CLUSTER, name)
    assert made is not None
    found = {"": policy_of(made.message)}
    for clients, message in made.variants.items():
        labels = "".join(f" {name}={value}" for name, value in clients.labels)
        found[f"{clients.namespace}{labels}"] = {} if message is None else policy_of(message)
    return found


def test_a_rule_of_the_clients_namespace_comes_before_that_of_the_service() -> None:
    turns = "  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}\n"
    hashed = "  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}\n"
    text = service() + rule(turns) + rule(RANDOM, namespace="front")
    result = translated(text + rule(hashed, namespace="back"))
    assert policies(result) == {
        "": {}, "front": {"policy": "RANDOM"}, "back": {"policy": "RING_HASH"}
    }  # fmt: skip
    filters = result.update.find(FILTER, f"{ORDERS}|20880")
    assert filters is not None
    assert set(filters.variants) == {Clients("back")}, "only there routes hash"
    assert "hash_on" not in result.routes(f"{ORDERS}|20880")[0]


def test_a_subset_of_some_clients_is_theirs_alone() -> None:
    subset = "  subsets: [{name: v1, labels: {version: v1}}]\n"
    to_v1 = f"[{{name: a, route: [{{destination: {{host: {ORDERS}, subset: v1}}}}]}}]"
    result = translated(service() + rule(subset, namespace="front") + router(to_v1))
    name = f"outbound|20880|v1|{ORDERS}"
    assert result.update.visible_to[CLUSTER, name] == {"front"}
    assert result.codes == []


def test_clients_whose_rule_asks_for_what_cannot_be_had_do_not_use_others_clusters() -> None:
    mutual = "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n"
    result = translated(service() + rule(mutual, namespace="front"))
    made = result.update.find(ENDPOINTS, BASE)
    assert made is not None
    assert set(made.variants) == {Clients("front")}
    assert len(result.hosts(BASE)) == 2
    theirs = made.variants[Clients("front")]
    assert theirs is not None
    assert not envoy_types().to_dict(theirs).get("endpoints")
    assert result.codes == ["tls-istio-mutual"]


def test_a_rule_of_a_clients_namespace_comes_and_goes() -> None:
    world = World({"service.yaml": service()})
    world.write("rule.yaml", rule(RANDOM, namespace="front"))
    assert {name for _, name in world.changed} == {BASE}
    world.check()
    world.write("rule.yaml", "")
    assert {name for _, name in world.changed} == {BASE}
    world.check()


def test_where_clients_are_not_told_apart_a_rule_for_some_is_for_none() -> None:
    selector = "  workloadSelector: {matchLabels: {app: batch}}\n"
    result = translated(service() + rule(RANDOM + selector), ALONE)
    assert result.policy(BASE) == {"policy": "LEAST_REQUEST"}
    (told,) = result.said("workload-selector")
    assert told.field == "spec.workloadSelector"
    everyone = translated(service() + rule(RANDOM + "  workloadSelector: {}\n"), ALONE)
    assert everyone.policy(BASE) == {"policy": "RANDOM"}


def selecting(policy: str, **labels: str) -> str:
    """Of a DestinationRule: a policy for workloads with these labels."""
    return f"{policy}  workloadSelector: {{matchLabels: {json.dumps(labels)}}}\n"


TURNS = "  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}\n"


def test_a_rule_that_selects_workloads_is_for_them_alone() -> None:
    text = service() + rule(selecting(RANDOM, app="batch"), namespace="front")
    result = translated(text)
    assert policies(result) == {
        "": {"policy": "LEAST_REQUEST"}, "front app=batch": {"policy": "RANDOM"}
    }  # fmt: skip
    assert result.codes == []


def test_a_rule_that_selects_a_workload_comes_before_those_for_all_of_its_namespace() -> None:
    text = service() + rule(TURNS, namespace="front", name="all", host=ORDERS)
    text += rule(selecting(RANDOM, app="batch"), namespace="front", name="batch", host=ORDERS)
    result = translated(text)
    found = policies(result)
    assert (found["front"], found["front app=batch"]) == ({}, {"policy": "RANDOM"})
    assert result.codes == []


def test_of_two_rules_that_select_a_workload_the_oldest_has_the_say() -> None:
    text = service() + rule(
        selecting(RANDOM, app="batch"), namespace="front", name="a", host=ORDERS
    )
    text += rule(selecting(TURNS, tier="slow"), namespace="front", name="b", host=ORDERS)
    found = policies(translated(text))
    assert found["front app=batch"] == found["front app=batch tier=slow"] == {"policy": "RANDOM"}
    assert found["front tier=slow"] == {}


def test_a_workload_that_its_rule_gives_what_others_get_elsewhere_does_not_get_its_namespaces() -> (
    None
):
    usual = "  trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}\n"
    text = service() + rule(TURNS, namespace="front", name="all", host=ORDERS)
    text += rule(selecting(usual, app="batch"), namespace="front", name="batch", host=ORDERS)
    found = policies(translated(text))
    assert found["front app=batch"] == found[""] != found["front"]


def test_a_subset_of_some_workloads_is_theirs_alone() -> None:
    subset = "  subsets: [{name: v1, labels: {version: v1}}]\n"
    text = service() + rule(selecting(subset, app="batch"), namespace="front")
    result = translated(text)
    made = result.update.find(CLUSTER, f"outbound|20880|v1|{ORDERS}")
    assert made is not None
    assert made.visible_to == frozenset({"front"})
    assert made.variants[Clients("front")] is None
    assert made.variants[Clients("front", (("app", "batch"),))] == made.message


def test_hosts_that_differ_in_case_alone_are_one() -> None:
    text = service() + rule(RANDOM, host="Orders.SHOP.svc.Cluster.Local")
    result = translated(text.replace(f"hosts: [{ORDERS}]", f"hosts: [{ORDERS.upper()}]"))
    assert result.policy(BASE) == {"policy": "RANDOM"}
    assert result.codes == []


@pytest.mark.parametrize("percent", ["", "maxEjectionPercent: 10", "maxEjectionPercent: 0"])
def test_a_share_of_hosts_that_comes_to_none_is_one(percent: str) -> None:
    detection = ruled(f"{{outlierDetection: {{{percent}}}}}").policy(BASE)["outlier_detection"]
    assert detection["max_ejection_percent"] == 10, "and the engine leaves out one in any case"


@pytest.mark.parametrize(
    ("hosts", "policy"),
    [
        (("*.cluster.local",), "RANDOM"),
        (("*.cluster.local", "*.shop.svc.cluster.local"), "MAGLEV"),
        (("*.shop.svc.cluster.local", ORDERS), "MAGLEV"),
        (("*.example",), "LEAST_REQUEST"),
    ],
)
def test_the_most_specific_rule_counts(hosts: tuple[str, ...], policy: str) -> None:
    balancers = ("{simple: RANDOM}", "{consistentHash: {httpHeaderName: a, maglev: {}}}")
    rules = [
        rule(f"  trafficPolicy: {{loadBalancer: {balancer}}}", name=f"r{number}", host=host)
        for number, (host, balancer) in enumerate(zip(hosts, balancers, strict=False))
    ]
    assert translated(service() + "".join(rules)).policy(BASE) == {"policy": policy}


def test_what_is_written_for_a_port_replaces_everything_else() -> None:
    result = translated(case_text("port-level-settings"))

    def limit(subset: str) -> int:
        cluster = result.cluster(f"outbound|20880|{subset}|{ORDERS}")
        value: int = cluster["circuit_breakers"]["thresholds"][0]["max_connections"]
        return value

    assert result.policy(BASE) == {}, "round robin, by the port"
    assert limit("") == 100_000, "not inherited from the policy of the whole"
    assert limit("overrides") == 9
    assert result.policy(f"outbound|20880|by-port|{ORDERS}") == {"policy": "RING_HASH"}


def test_tls_checks_the_names_of_the_service_entry() -> None:
    text = service(extra="  subjectAltNames: [orders.example]") + rule(
        "  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /ca.pem}}"
    )
    context = translated(text).cluster(BASE)["transport_socket"]["typed_config"]
    checked = context["common_tls_context"]["validation_context"]
    names = [item["matcher"]["exact"] for item in checked["match_typed_subject_alt_names"]]
    assert names == ["orders.example"]
    assert context["sni"] == ORDERS


@pytest.mark.parametrize("authority", ["", ", caCertificates: system"])
@pytest.mark.parametrize(
    ("names", "checked"),
    [
        ("", ORDERS),
        (", sni: orders.example", "orders.example"),
        (", sni: orders.example, subjectAltNames: [other.example]", "other.example"),
    ],
)
def test_tls_without_authority_trusts_the_systems_and_checks_the_name(
    authority: str, names: str, checked: str
) -> None:
    text = service() + rule(f"  trafficPolicy: {{tls: {{mode: SIMPLE{authority}{names}}}}}")
    result = translated(text, Options(system_ca=Path("/system.pem")))
    context = result.cluster(BASE)["transport_socket"]["typed_config"]
    validation = context["common_tls_context"]["validation_context"]
    assert validation == {
        "trusted_ca": {"filename": "/system.pem"},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": checked}}],
    }
    assert result.codes == []


def test_only_insecure_skip_verify_leaves_a_server_unverified() -> None:
    tls = "{tls: {mode: SIMPLE, insecureSkipVerify: true}}"
    context = ruled(tls).cluster(BASE)["transport_socket"]["typed_config"]
    assert "validation_context" not in context["common_tls_context"]


def test_the_systems_authorities_are_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert system_ca() == authority


def test_a_revocation_list_is_used() -> None:
    tls = "{tls: {mode: SIMPLE, caCertificates: /ca.pem, caCrl: /crl.pem}}"
    context = ruled(tls).cluster(BASE)["transport_socket"]["typed_config"]
    checked = context["common_tls_context"]["validation_context"]
    assert checked["crl"] == {"filename": "/crl.pem"}


def test_istio_mutual_is_right_in_istio() -> None:
    text = service() + rule("  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}")
    assert translated(text, Options(target=Target.ISTIO)).diagnostics == ()


def test_the_rate_limit_services_cluster_is_an_ordinary_http2_one() -> None:
    result = translated(case_text("global-rate-limit"))
    cluster = result.cluster("outbound|8081||rls.shop.svc.cluster.local")
    assert "upstream_config" not in cluster
    assert "load_balancing_policy" not in cluster
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": {}}


def test_a_rate_limit_service_must_not_be_one_of_ours() -> None:
    limit = f"""  globalRateLimit:
    domain: d
    rateLimitService: outbound|20880||{ORDERS}
    descriptors: [{{property: method, descriptorKey: m}}]"""
    assert "no-grpc" in translated(service() + router("[]", extra=limit)).codes


def test_weights_too_large_for_envoy_keep_their_proportion() -> None:
    text = service().replace("{version: v1}}", "{version: v1}, weight: 4294967295}")
    text = text.replace("{version: v2}}", "{version: v2}, weight: 2147483648}")
    content = translated(text).message(ENDPOINTS, BASE)
    weights = [
        item["load_balancing_weight"]
        for locality in content["endpoints"]
        for item in locality["lb_endpoints"]
    ]
    assert sum(weights) < 2**32
    assert weights[0] / weights[1] == pytest.approx(2)


class _Nothing:
    """A host of an engine that nothing is sent through."""

    def write_session(self, session: int, data: bytes) -> None: ...
    def close_session(self, session: int, flush: bool) -> None: ...
    def pause_session(self, session: int, paused: bool) -> None: ...
    def open_lease(self, lease: int, cluster: str, address: str) -> None: ...
    def write_lease(self, lease: int, data: bytes) -> None: ...
    def probe_lease(self, lease: int) -> None: ...
    def pause_lease(self, lease: int, paused: bool) -> None: ...
    def release_lease(self, lease: int) -> None: ...
    def reset_lease(self, lease: int) -> None: ...
    def start_call(
        self, call: int, session: int, cluster: str, path: str, message: bytes, timeout_us: int
    ) -> None: ...
    def log(self, text: str) -> None: ...
    def metric(self, name: str, protocol: str, route: str, cluster: str, delta: int) -> None: ...


@pytest.mark.parametrize("name", case_names())
def test_the_engine_takes_every_policy(name: str) -> None:
    result = translated(case_text(name))
    engine = Engine(_Nothing())
    for number, cluster in enumerate(result.names(CLUSTER)):
        content = result.cluster(cluster)
        if "load_balancing_policy" in content:
            (policy,) = content["load_balancing_policy"]["policies"]
            text = policy["typed_extension_config"]["typed_config"]["lb_policy_config"]["value"]
            engine.set_cluster(cluster, number + 1, text, [("10.0.0.1:1", 1, True)])


# --- policies, apart from the kind of object that says them


EVERY_PART = """{
    loadBalancer: {simple: PASSTHROUGH},
    connectionPool: {tcp: {connectTimeout: 48h}},
    outlierDetection: {consecutive5xxErrors: 3},
    tls: {mode: SIMPLE, insecureSkipVerify: true}%s}"""


def test_every_part_of_a_policy_knows_the_field_it_comes_from() -> None:
    everything = EVERY_PART % ""
    ports = f", portLevelSettings: [{{port: {{number: 20880}}, {everything[1:]}]"
    subsets = f"  subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {everything}}}]"
    (written,) = read(rule(f"  trafficPolicy: {EVERY_PART % ports}\n{subsets}"))
    assert isinstance(written, DestinationRule)
    policies, _ = host_policies(ORDERS, "shop", [written], ALONE)
    fields = set()
    for subset, port in [("", 1), ("", 20880), ("v1", 1)]:
        policy = policies.policy(subset, port)
        for part in (policy.balancing, policy.pool, policy.outliers, policy.tls):
            assert part is not None
            assert part.owner is written
            for field in (part.field, *(finding.diagnostic.field for finding in part.said)):
                assert written_at(written.to_dict(), field), field
                fields.add(field)
    assert {
        "spec.trafficPolicy.loadBalancer.simple",
        "spec.trafficPolicy.portLevelSettings[0].connectionPool.tcp.connectTimeout",
        "spec.subsets[0].trafficPolicy.tls.insecureSkipVerify",
    } <= fields


def test_a_policy_goes_over_another_part_by_part_and_one_for_a_port_in_place_of_all() -> None:
    policy = """{loadBalancer: {simple: RANDOM}, outlierDetection: {},
        portLevelSettings: [{port: {number: 1}, tls: {mode: DISABLE}}]}"""
    subsets = """
  subsets:
  - {name: v1, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
"""
    (written,) = read(rule(f"  trafficPolicy: {policy}{subsets}"))
    assert isinstance(written, DestinationRule)
    policies, _ = host_policies(ORDERS, "shop", [written], ALONE)
    for_all, for_port, for_subset = (
        policies.policy(*asked) for asked in [("", 20880), ("", 1), ("v1", 20880)]
    )
    assert for_all.balancing is not None
    assert for_all.balancing.value.message.policy == ClusterPolicy.RANDOM
    assert for_port.tls is not None
    assert for_port.tls.value is None
    assert (for_port.balancing, for_port.outliers) == (None, None)
    assert for_subset.balancing is not None
    assert for_subset.balancing.value.message.policy == ClusterPolicy.ROUND_ROBIN
    assert for_subset.outliers == for_all.outliers
